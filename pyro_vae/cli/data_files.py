"""Data sets from files of arrays. Nothing in a file is ever executed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data import Splits
from pyro_vae.data.arrays import as_tensor

__all__ = ["read_splits"]

SPLITS = ("train", "valid", "test")
LABELS = ("train_labels", "valid_labels", "test_labels")


def read_splits(path: Path) -> Splits:
    """Reads a file .npy, .npz or .pt of one array ``[n, *event]``, or of several: train, valid, test, train_labels, ...

    For validation and test, where they are not there, a tenth each of the first array is set aside, drawn at random but
    always the same. Bytes are divided by 255, all other numbers become floats; ``[n, height, width]`` becomes
    ``[n, 1, height, width]``.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged, or holds something else.
    """
    if path.suffix not in READERS:
        raise ValueError(f"the data file {str(path)!r} is of another kind; expected one of {', '.join(READERS)}")
    try:
        content = READERS[path.suffix](path)
    except (ValueError, RuntimeError, EOFError, LookupError, BadZipFile, UnpicklingError, zlib.error) as error:
        raise ValueError(f"the data file {str(path)!r} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        content = {"train": content}
    elif "train" not in content and len(content) == 1:
        content = {"train": next(iter(content.values()))}
    elif "train" not in content:
        raise ValueError(f"the data file {str(path)!r} has the arrays {', '.join(content)}; expected train among them")
    arrays = {name: _data(path, name, content[name]) for name in SPLITS if name in content}
    arrays |= {name: as_tensor(content[name]) for name in LABELS if name in content}
    return Splits(**_split(path, arrays))


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": _read_npz,
    ".pt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
}


def _data(path: Path, name: str, array: Any) -> Tensor:
    try:
        x = as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} of the data file {str(path)!r} is not an array of numbers") from error
    if x.ndim < 2 or x.is_complex():
        raise ValueError(
            f"{name} of the data file {str(path)!r} is {x.dtype} of shape {list(x.shape)}; expected numbers [n, *event]"
        )
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    return x.unsqueeze(1) if x.ndim == 3 else x


def _split(path: Path, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sets data aside for the parts that are not there."""
    missing = [name for name in SPLITS if name not in arrays]
    if not missing:
        return arrays
    n = len(arrays["train"])
    tenth = -(-n // 10)
    if n <= len(missing) * tenth:
        raise ValueError(
            f"train of the data file {str(path)!r} has {n} datapoints; too few to set a part of them aside"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    kept, *aside = order.split([n - len(missing) * tenth, *[tenth] * len(missing)])
    rows = dict(zip(("train", *missing), (kept, *aside), strict=True))
    for source in ("train_labels", "train"):
        if source in arrays:
            whole = arrays[source]
            arrays |= {source.replace("train", name): whole[index] for name, index in rows.items()}
    return arrays
