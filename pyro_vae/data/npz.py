"""Arrays in files of NumPy's."""

from __future__ import annotations

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from pyro_vae.data.arrays import native

__all__ = ["read_array"]


def read_array(path: Path, name: str) -> np.ndarray:
    """Reads one array of a ``.npz`` file; nothing in it is executed.

    Raises:
        ValueError: If it is not there or cannot be read; the message names the file and the array.
    """
    try:
        with path.open("rb") as file:
            return native(np.load(file, allow_pickle=False)[name])
    except (OSError, EOFError, ValueError, LookupError, BadZipFile, zlib.error) as error:
        raise ValueError(f"array {name!r} of {path} cannot be read: {error}") from error
