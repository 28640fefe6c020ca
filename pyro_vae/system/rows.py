"""Which rows of the data to use, if not all."""

from __future__ import annotations

import torch
from torch import Tensor


def evenly_spaced(n: int, count: int) -> Tensor:
    """The indices of ``count`` of n rows; of all, if there are not so many. The first rows may be of one kind."""
    count = min(count, n)
    return torch.arange(count) * n // count
