"""Reads arrays from .npy files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

__all__ = ["open_npy"]


@contextmanager
def open_npy(path: Path) -> Iterator[dict[str, Any]]:
    """The array of a file; its values are read when asked for.

    Raises:
        Exception: Whatever NumPy raises if the file cannot be read.
    """
    with path.open("rb") as file:
        if file.read(1) == b"\x80":  # of a pickle; an array begins with another byte
            raise UnpicklingError
    yield {"array": _NpyArray(path)}


class _NpyArray:
    """Rows are read from the file, so that they do not stay in memory as pages of a memory-mapped file may."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape, self.dtype = self._map.shape, self._map.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        if not isinstance(rows, np.ndarray) or not self._map.flags.c_contiguous:
            return np.array(self._map[rows])
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        with self._path.open("rb") as file:
            for row, content in zip(rows.tolist(), values.reshape(len(rows), -1).view(np.uint8), strict=True):
                file.seek(self._map.offset + row * content.nbytes)
                if file.readinto(content.data) < content.nbytes:
                    raise EOFError
        return values
