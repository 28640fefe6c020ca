"""Folders for results."""

from __future__ import annotations

import tempfile
from pathlib import Path

__all__ = ["writable_folder"]


def writable_folder(path: str | Path) -> Path:
    """Makes the folder if need be, and makes sure that files can be written to it.

    Raises:
        OSError: If they cannot; the message names the folder.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"cannot write to the folder {str(path)!r}: {error.strerror or error}") from error
    return path
