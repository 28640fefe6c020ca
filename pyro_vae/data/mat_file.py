"""Arrays of MATLAB files, which SciPy reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read_mat(path: Path, name: str) -> np.ndarray:
    """Reads one array.

    Raises:
        ImportError: If SciPy cannot be imported.
        ValueError: If the file is damaged, or has no such array.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(f"{path} is read by SciPy, which cannot be imported: {error}") from error
    try:
        return np.asarray(loadmat(path, variable_names=[name])[name])
    except Exception as error:  # SciPy raises many kinds of errors for damaged files
        raise ValueError(f"array {name!r} of {path} cannot be read: {error}") from error
