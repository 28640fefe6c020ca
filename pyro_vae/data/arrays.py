"""NumPy arrays as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_tensor", "native"]


def native(array: np.ndarray) -> np.ndarray:
    """The array in the byte order of this machine, the only one that torch supports."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_tensor(array: Any) -> Tensor:
    """An array of any byte order and layout as a tensor, without a copy if possible; a tensor stays as it is.

    Raises:
        TypeError: If torch has no such dtype.
    """
    if isinstance(array, Tensor):
        return array
    array = native(np.asarray(array))
    # Torch does not support negative strides, and warns about memory that is read-only.
    is_plain = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if is_plain else array.copy())
