"""Makes networks accept classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.checks import check_count


class OneHot(nn.Module):
    """Encodes classes as one-hot vectors and calls the network.

    Args:
        network: A network for one-hot vectors ``[*batch, *event, classes]``.
        classes: The number of classes, at least 2.

    Raises:
        ValueError: If ``classes`` is not an integer of at least 2.

    Example:
        >>> nn.OneHot(torch.nn.Identity(), classes=3)(torch.tensor([0, 2]))
        tensor([[1., 0., 0.],
                [0., 0., 1.]])
    """

    values: Tensor

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network = network
        self.classes = check_count("classes", classes, least=2)
        self.register_buffer("values", torch.eye(classes), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Calls the network with x ``[*batch, *event]``, integers from 0 to ``classes - 1``, as one-hot vectors."""
        return self.network(self.values[x])
