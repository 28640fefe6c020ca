"""Data sets of 28 x 28 images in MATLAB files: Omniglot and Caltech 101 Silhouettes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data.mat_file import read_mat
from pyro_vae.data.splits import Splits

OMNIGLOT = "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat"
SILHOUETTES = "https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat"
NUM_VALID = 1345
SIDE = 28


def load_omniglot(root: str | Path | None) -> Splits:
    """Handwritten characters of 50 alphabets, in the version and split of Burda et al. 2015: 24345 and 8070 images.

    They are grey, mostly 0 or 1. A random 1345 of the training images are for validation, as many as in Tomczak &
    Welling 2018; which ones is fixed. The labels are the alphabets.

    Args:
        root: A folder with ``chardata.mat``, which needs SciPy.

    Raises:
        FileNotFoundError: If it is not there; the message says where to download it.
        ValueError: If the content of the file is not as expected.
        ImportError: If SciPy cannot be imported.
    """
    path = _found("omniglot", root, OMNIGLOT)
    train, test = (_images(path, name, read_mat(path, name).T) for name in ("data", "testdata"))
    labels, test_labels = (
        _labels(path, name, read_mat(path, name).argmax(0), images)
        for name, images in (("target", train), ("testtarget", test))
    )
    if len(train) <= NUM_VALID:
        raise ValueError(f"array 'data' of {path} has {len(train)} images; expected more than {NUM_VALID}")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    valid, rest = order[:NUM_VALID], order[NUM_VALID:].sort().values
    return Splits(train[rest], train[valid], test, labels[rest], labels[valid], test_labels)


def load_caltech101_silhouettes(root: str | Path | None) -> Splits:
    """Outlines of the objects of Caltech 101, filled (Marlin et al. 2010): 4100, 2264 and 2307 binary images.

    The values are those of the file; Tomczak & Welling 2018 have 0 where it has 1. The labels are the 101 classes, from
    0.

    Args:
        root: A folder with ``caltech101_silhouettes_28_split1.mat``, which needs SciPy.

    Raises:
        FileNotFoundError: If it is not there; the message says where to download it.
        ValueError: If the content of the file is not as expected.
        ImportError: If SciPy cannot be imported.
    """
    path = _found("caltech101_silhouettes", root, SILHOUETTES)
    parts = {part: _images(path, f"{part}_data", read_mat(path, f"{part}_data")) for part in ("train", "val", "test")}
    labels = {
        part: _labels(path, f"{part}_labels", read_mat(path, f"{part}_labels").reshape(-1).astype(np.int64) - 1, images)
        for part, images in parts.items()
    }
    return Splits(*parts.values(), *labels.values())


def _found(name: str, root: str | Path | None, source: str) -> Path:
    if root is None:
        raise FileNotFoundError(f"{name} needs root=, the folder with its file; download it from {source}")
    path = Path(root) / source.rpartition("/")[2]
    if not path.is_file():
        raise FileNotFoundError(f"{root} does not contain {path.name}; download it from {source}")
    return path


def _images(path: Path, name: str, rows: np.ndarray) -> Tensor:
    """Images ``[n, 1, 28, 28]`` from a row for each, with its pixels column by column, as MATLAB has them."""
    if rows.ndim != 2 or rows.shape[1] != SIDE * SIDE or len(rows) == 0:
        raise ValueError(f"array {name!r} of {path} has {list(rows.shape)} as rows and pixels; expected [n, 784]")
    images = torch.from_numpy(np.ascontiguousarray(rows.astype(np.float32)))
    if not ((images >= 0) & (images <= 1)).all():
        raise ValueError(f"array {name!r} of {path} has values outside of [0, 1]")
    return images.reshape(-1, 1, SIDE, SIDE).mT.contiguous()


def _labels(path: Path, name: str, labels: np.ndarray, images: Tensor) -> Tensor:
    if labels.shape != (len(images),) or labels.min() < 0:
        raise ValueError(f"array {name!r} of {path} is not a label for each of {len(images)} images")
    return torch.from_numpy(labels.astype(np.int64))
