"""Networks for data with missing values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FillMissing"]


class FillMissing(nn.Module):
    """Puts a value in the place of every NaN, and calls the network (Mattei & Frellsen 2019, section 3: zero).

    Args:
        network: Maps complete data ``[*batch, *event]`` to whatever it does.
        value: The value.
    """

    def __init__(self, network: nn.Module, value: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """Calls the network with the gaps of x ``[*batch, *event]`` filled."""
        return self.network(torch.where(x.isnan(), self.value, x))
