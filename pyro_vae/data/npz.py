"""Arrays in files of NumPy's."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from pyro_vae.programs.arrays import native

__all__ = ["read_array", "reason"]


def read_array(path: Path, name: str) -> np.ndarray:
    """Reads one array of a ``.npz`` file; nothing in it is executed.

    Raises:
        ValueError: If it is not there or cannot be read; the message names the file and the array.
    """
    try:
        with path.open("rb") as file:
            return native(np.load(file, allow_pickle=False)[name])
    except OSError as error:
        raise ValueError(f"array {name!r} of {path} cannot be read: {error}") from error
    except Exception as error:  # nobody lists what libraries raise at content that is not theirs
        raise ValueError(f"array {name!r} of {path} cannot be read: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Why a file cannot be read, in words of our own: what libraries say of some is how to have their content run."""
    if isinstance(error, UnpicklingError) or "pickle" in str(error).lower():
        return "it holds objects of Python, which may do anything when they are read; expected arrays of numbers"
    return "it is not there" if isinstance(error, KeyError) else "it is damaged, or not what its name says"
