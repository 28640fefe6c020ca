"""Frey Face: a video of Brendan Frey's face, the second data set of Kingma & Welling 2013."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pyro_vae.data.mat_file import read_mat
from pyro_vae.data.npz import read_array
from pyro_vae.data.splits import Splits

SOURCE = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"
FRAMES, HEIGHT, WIDTH = 1965, 28, 20
NUM_VALID = NUM_TEST = 200


def load_frey_faces(root: str | Path | None) -> Splits:
    """The 1965 grey frames in order of time: 1565 for training, the next 200 for validation, the last 200 for testing.

    Consecutive frames are nearly the same, so with a random split the test frames would be almost identical to training
    frames. The last part of the video is a harder test, with facial expressions that are not in the training data. The
    literature mostly uses random splits of the same sizes (Tomczak & Welling 2018); its results are not comparable.

    Args:
        root: A folder with the original file ``frey_rawface.mat``, which needs SciPy, or with ``frey_faces.npz``, which
            has an array ``images``, uint8 ``[1965, 28, 20]``.

    Raises:
        FileNotFoundError: If the folder has neither; the message says where to download the original file.
        ValueError: If the content of a file is not as expected.
        ImportError: If the original file is used and SciPy cannot be imported.
    """
    if root is None:
        raise FileNotFoundError(f"frey_faces needs root=, the folder with its file; download it from {SOURCE}")
    packed, original = (Path(root) / name for name in ("frey_faces.npz", "frey_rawface.mat"))
    if packed.is_file():
        path, frames = packed, read_array(packed, "images")
    elif original.is_file():
        path, frames = original, read_mat(original, "ff").T  # a column for each frame, with its pixels row by row
    else:
        raise FileNotFoundError(f"{root} contains neither {packed.name} nor {original.name}; download it from {SOURCE}")
    if frames.dtype != np.uint8 or frames.shape[:1] != (FRAMES,) or frames.size != FRAMES * HEIGHT * WIDTH:
        raise ValueError(
            f"{path} contains {frames.dtype} {list(frames.shape)}; expected uint8 {[FRAMES, HEIGHT, WIDTH]}"
        )
    images = torch.from_numpy(frames.reshape(-1, 1, HEIGHT, WIDTH)).float() / 255
    return Splits(*images.split([FRAMES - NUM_VALID - NUM_TEST, NUM_VALID, NUM_TEST]))
