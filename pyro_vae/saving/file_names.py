"""The files in the folder of a run, and in that of a saved model. This module does not import torch."""

from __future__ import annotations

import os
from pathlib import Path

LAST, BEST, RUN = "last.safetensors", "best.safetensors", "run.json"  # in the folder of a run
MODEL, CONFIG = "model.safetensors", "config.json"  # in the folder of a saved model
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


def checkpoint_of(path: str | Path) -> Path:
    """The file with the weights: in a folder the best ones, if there are any; or the path itself if it is a file.

    Raises:
        TypeError: If it is not a path.
        FileNotFoundError: If it does not exist, or there is no such file in the folder.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path is of type {type(path).__name__}; expected the path of a folder or of a file")
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {str(path)!r}")
    if not path.is_dir():
        return path
    for name in (BEST, LAST, MODEL):
        if (path / name).exists():
            return path / name
    message = f"there is no checkpoint in the folder {str(path)!r}; expected {BEST}, {LAST} or {MODEL}"
    if pickles := sorted(each.name for each in path.iterdir() if each.suffix in _PICKLES):
        message += f" ({pickles[0]} may be a pickle, which is never opened)"
    raise FileNotFoundError(message)
