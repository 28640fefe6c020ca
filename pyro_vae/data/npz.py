"""Reads arrays from .npz files."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from pyro_vae.programs.arrays import native

__all__ = ["read_array", "reason"]


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


def reason(error: Exception) -> str:
    """Why a file cannot be read. The library's own message is not shown: it may advise to execute pickled objects."""
    if isinstance(error, UnpicklingError) or "pickle" in str(error).lower():
        return "it has pickled Python objects, which may run any code when loaded; expected arrays of numbers"
    return "it is missing" if isinstance(error, KeyError) else "it is damaged, or in another format than its name says"
