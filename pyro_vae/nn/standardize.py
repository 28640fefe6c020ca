"""Networks for data in their own units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Calls the network with (x - center) / scale. Missing values (NaN) stay missing.

    Args:
        network: Maps ``[*batch, *event]`` to any output.
        center: What is subtracted: a number, or a (nested) list or tensor that broadcasts with ``[*event]``.
        scale: What is divided by, likewise.

    Example:
        >>> nn.Standardize(torch.nn.Identity(), [10.0, 0.0], 2.0)(torch.tensor([14.0, 1.0]))
        tensor([2.0000, 0.5000])
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self, network: nn.Module, center: float | Sequence[Any] | Tensor, scale: float | Sequence[Any] | Tensor
    ) -> None:
        super().__init__()
        self.network = network
        for name, value in (("center", center), ("scale", scale)):
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.get_default_dtype()).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Calls the network with the standardized x ``[*batch, *event]``."""
        return self.network((x - self.center) / self.scale)
