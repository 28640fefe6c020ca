"""Frey Face: a video of Brendan Frey's face, the second data set of Kingma & Welling 2013."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pyro_vae.data.npz import read_array
from pyro_vae.data.splits import Splits

__all__ = ["load_frey_faces"]

SOURCE = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
FRAMES, HEIGHT, WIDTH = 1965, 28, 20
NUM_VALID = NUM_TEST = 200


def load_frey_faces(root: str | Path | None) -> Splits:
    """The 1965 grey frames in order of time: 1565 to train on, the next 200 to validate, the last 200 to test.

    Frames that follow each other are nearly the same, so that frames chosen at random would test a model on what it was
    trained on. A stretch of the video that was not seen is a harder test, with expressions of its own. The literature
    mostly shuffles the frames, into splits of the same sizes (Tomczak & Welling 2018): its numbers are not comparable.

    Args:
        root: A folder with the original file ``frey_rawface.mat``, for which SciPy is needed, or with
            ``frey_faces.npz``, which has an array ``images``, uint8 ``[1965, 28, 20]``.

    Raises:
        FileNotFoundError: If the folder has neither; the message says where the original file can be had.
        ValueError: If a file does not hold what it should.
        ImportError: If the original file is there, and SciPy is not.
    """
    if root is None:
        raise FileNotFoundError(f"frey_faces needs root=, the folder that holds it; it can be had from {SOURCE}")
    packed, original = (Path(root) / name for name in ("frey_faces.npz", "frey_rawface.mat"))
    if packed.is_file():
        path, frames = packed, read_array(packed, "images")
    elif original.is_file():
        path, frames = original, _read_mat(original).T  # a column for each frame, with its pixels row by row
    else:
        raise FileNotFoundError(f"{root} holds neither {packed.name} nor {original.name}; it can be had from {SOURCE}")
    if frames.dtype != np.uint8 or frames.shape[:1] != (FRAMES,) or frames.size != FRAMES * HEIGHT * WIDTH:
        raise ValueError(f"{path} holds {frames.dtype} {list(frames.shape)}; expected uint8 {[FRAMES, HEIGHT, WIDTH]}")
    images = torch.from_numpy(frames.reshape(-1, 1, HEIGHT, WIDTH)).float() / 255
    return Splits(*images.split([FRAMES - NUM_VALID - NUM_TEST, NUM_VALID, NUM_TEST]))


def _read_mat(path: Path) -> np.ndarray:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(f"{path} is read with SciPy, which cannot be imported: {error}") from error
    try:
        return np.asarray(loadmat(path, variable_names=["ff"])["ff"])
    except Exception as error:  # of a damaged file SciPy makes errors of many kinds
        raise ValueError(f"array 'ff' of {path} cannot be read: {error}") from error
