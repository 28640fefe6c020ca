"""Networks for classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.checks import check_count

__all__ = ["OneHot"]


class OneHot(nn.Module):
    """Makes classes into vectors of zeros and a one, and calls the network with them.

    Args:
        network: Maps ``[*batch, *event, classes]`` to whatever it does.
        classes: The number of classes.
    """

    values: Tensor

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network = network
        self.classes = check_count("classes", classes, least=2)
        self.register_buffer("values", torch.eye(classes), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Calls the network with the vectors of x ``[*batch, *event]``, integers from 0 to ``classes - 1``."""
        return self.network(self.values[x])
