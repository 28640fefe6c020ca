"""Reads arrays from Zarr folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np


@contextmanager
def open_zarr(path: Path) -> Iterator[dict[str, Any]]:
    """The arrays of a folder by their paths in it; their values are read when asked for.

    Raises:
        ImportError: If zarr is not installed.
        Exception: Whatever zarr raises if the folder cannot be read.
    """
    import zarr

    node = zarr.open(str(path), mode="r")
    arrays = {"array": node} if isinstance(node, zarr.Array) else dict(node.members(max_depth=None))
    yield {name: _ZarrArray(each) for name, each in arrays.items() if isinstance(each, zarr.Array)}


class _ZarrArray:
    """A Zarr array that is indexed as h5py's and NumPy's are."""

    def __init__(self, array: Any) -> None:
        if "pickle" in str(array.metadata.to_dict()):  # a codec that runs code when a value is read
            raise UnpicklingError
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self._array.oindex[rows] if isinstance(rows, np.ndarray) else self._array[rows]
