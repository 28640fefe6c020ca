"""Reads arrays from .npz files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pyro_vae.data.reading import reason
from pyro_vae.programs.arrays import native


def read_array(path: Path, name: str) -> np.ndarray:
    """Reads one array of a ``.npz`` file, without executing anything in it.

    Raises:
        ValueError: If it is missing or cannot be read; the message names the file and the array.
    """
    try:
        with path.open("rb") as file:
            return native(np.load(file, allow_pickle=False)[name])
    except OSError as error:
        raise ValueError(f"array {name!r} of {path} cannot be read: {error}") from error
    except Exception as error:  # NumPy does not document what it raises for invalid files
        raise ValueError(f"array {name!r} of {path} cannot be read: {reason(error)}") from error


@contextmanager
def open_npz(path: Path) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of a file, in memory."""
    with np.load(path, allow_pickle=False) as arrays:
        content = dict(arrays)
    yield content


def is_sparse(path: Path) -> bool:
    """Whether a file .npz is a sparse matrix of SciPy."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {"format", "shape", "data"} <= set(arrays.files)
    except Exception:  # the function that reads the file reports the error
        return False
