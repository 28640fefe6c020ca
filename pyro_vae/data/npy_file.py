"""Reads arrays from .npy files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np


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
    """Rows are copied out of a memory map, whose pages leave the memory of the process when the file is closed."""

    def __init__(self, path: Path) -> None:
        self._map = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape, self.dtype = self._map.shape, self._map.dtype

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.array(self._map[rows])
