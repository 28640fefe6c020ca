"""Makes networks accept data with missing values."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FillMissing(nn.Module):
    """Replaces every NaN by a value and calls the network (zero in Mattei & Frellsen 2019, section 3).

    Args:
        network: A network for complete data ``[*batch, *event]``.
        value: The value that replaces NaN.

    Example:
        >>> nn.FillMissing(torch.nn.Identity())(torch.tensor([1.0, float("nan")]))
        tensor([1., 0.])
    """

    def __init__(self, network: nn.Module, value: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """Calls the network with x ``[*batch, *event]``, NaN replaced."""
        return self.network(torch.where(x.isnan(), self.value, x))
