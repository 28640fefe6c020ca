"""NumPy's arrays as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_tensor", "native"]


def native(array: np.ndarray) -> np.ndarray:
    """The array in the byte order of this machine, which is the only one that torch knows."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_tensor(array: Any) -> Tensor:
    """An array of any byte order and layout as a tensor; it shares the memory where it can. A tensor stays as it is.

    Raises:
        TypeError: If there is no such dtype in torch.
    """
    if isinstance(array, Tensor):
        return array
    array = native(np.asarray(array))
    # Torch has no negative strides, and warns of memory that it may not write to.
    is_plain = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if is_plain else array.copy())
