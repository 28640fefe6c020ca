"""NumPy arrays as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from pyro_vae.system.trees import map_leaves


def native(array: np.ndarray) -> np.ndarray:
    """The array in the byte order of this machine, the only one that torch supports."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_tensor(array: Any) -> Tensor:
    """Converts an array of any byte order and layout to a tensor, without a copy if possible. A tensor stays as it is.

    Raises:
        TypeError: If torch has no such dtype.
    """
    if isinstance(array, Tensor):
        return array
    array = native(np.asarray(array))
    # Torch has no negative strides, and warns of read-only memory.
    is_plain = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if is_plain else array.copy())


def arrays_as_tensors(data: Any, dtype: torch.dtype, name: str) -> Any:
    """Converts an array, the arrays in a tuple, or those in a dictionary to tensors. Anything else stays as it is.

    Args:
        data: The data.
        dtype: The dtype for floating-point arrays.
        name: The name of the data, for messages.

    Raises:
        TypeError: If torch has no such dtype.
    """
    if isinstance(data, np.ndarray):
        try:
            tensor = as_tensor(data)
        except TypeError as error:
            raise TypeError(f"{name} is an array of {data.dtype}; expected numbers that torch has") from error
        return tensor.to(dtype) if tensor.is_floating_point() else tensor
    if isinstance(data, tuple):
        return tuple(arrays_as_tensors(each, dtype, name) for each in data)
    if isinstance(data, Mapping):
        return {key: arrays_as_tensors(each, dtype, name) for key, each in data.items()}
    return data


def collate(items: list[Any]) -> Any:
    """Puts the items of a ``Dataset`` together in a batch, as torch does; arrays may have any byte order."""
    return default_collate(map_leaves(lambda each: native(each) if isinstance(each, np.ndarray) else each, items))
