"""Reads data sets from files of arrays, without executing anything in them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.data import Splits
from pyro_vae.data.npz import reason
from pyro_vae.programs.arrays import as_tensor

__all__ = ["as_splits", "is_sparse", "read_arrays", "read_splits", "split", "split_rows"]

SPLITS = ("train", "valid", "test")
LABELS = ("train_labels", "valid_labels", "test_labels")


def read_splits(path: Path) -> Splits:
    """Reads a file of arrays, as :func:`read_arrays` does, and splits what is not split.

    If valid or test is missing, a tenth of the training data is set aside for it, drawn at random but always the same.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged, holds something else, or has too few datapoints to split.
    """
    return as_splits(path, read_arrays(path))


def as_splits(path: Path, arrays: dict[str, Tensor]) -> Splits:
    """Splits what is not split yet.

    Raises:
        ValueError: If there are too few datapoints.
    """
    return Splits(**_split(path, arrays))


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Reads a file .npy, .npz or .pt of one array ``[n, *event]``, or of several: train, valid, test, train_labels, ...

    Bytes are divided by 255, all other numbers become floats. ``[n, height, width]`` with values from 0 to 1 becomes
    ``[n, 1, height, width]``. Channels that are last become first.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged, or its content is not as expected.
    """
    if path.suffix not in READERS:
        raise ValueError(f"the data file {str(path)!r} has an unknown format; expected one of {', '.join(READERS)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of libraries about the file are of no use to the user
            content = READERS[path.suffix](path)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # libraries do not document what they raise for invalid files
        raise ValueError(f"the data file {str(path)!r} cannot be read: {reason(error)}") from error
    if not isinstance(content, dict):
        content = {"train": content}
    elif "train" not in content and len(content) == 1:
        content = {"train": next(iter(content.values()))}
    elif "train" not in content:
        names = ", ".join(map(str, content)) or "none"
        raise ValueError(f"the data file {str(path)!r} has the arrays {names}; expected train among them")
    arrays = {name: _data(path, name, content[name]) for name in SPLITS if name in content}
    arrays |= {name: _tensor(path, name, content[name]) for name in LABELS if name in content}
    for name in SPLITS:
        labels = arrays.get(f"{name}_labels")
        if labels is not None and name in arrays and labels.shape != arrays[name].shape[:1]:
            raise ValueError(
                f"{name}_labels of the data file {str(path)!r} have shape {list(labels.shape)}; expected "
                f"[{len(arrays[name])}], one for each datapoint"
            )
    return arrays


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": _read_npz,
    ".pt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
}


def _tensor(path: Path, name: str, array: Any) -> Tensor:
    try:
        tensor = as_tensor(array)
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise TypeError("it is sparse, quantized or a meta tensor")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} of the data file {str(path)!r} is not an array of numbers") from error
    return tensor


def _data(path: Path, name: str, array: Any) -> Tensor:
    x = _tensor(path, name, array)
    if x.ndim < 2 or x.is_complex():
        raise ValueError(
            f"{name} of the data file {str(path)!r} is {x.dtype} of shape {list(x.shape)}; expected numbers [n, *event]"
        )
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    if x.ndim == 4 and x.shape[-1] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        x = x.permute(0, 3, 1, 2).contiguous()  # channels last, as image libraries have them
    is_image = x.ndim == 3 and bool(((x >= 0) & (x <= 1)).all())
    return x.unsqueeze(1) if is_image else x


def is_sparse(path: Path) -> bool:
    """Whether a file .npz is a sparse matrix of SciPy."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {"format", "shape", "data"} <= set(arrays.files)
    except Exception:  # what it is instead is found out by who reads it
        return False


def split_rows(name: str, n: int, parts: int = 2) -> list[Tensor]:
    """The rows of the training data, and a tenth of all rows for each further part, drawn with a fixed seed.

    Raises:
        ValueError: If there are too few rows; the message has the name of the data.
    """
    tenth = -(-n // 10)
    if n <= parts * tenth:
        raise ValueError(f"train of the data file {name!r} has {n} datapoints, too few to split")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return list(order.split([n - parts * tenth, *[tenth] * parts]))


def split(name: str, x: Tensor, labels: Tensor | None = None) -> Splits:
    """Sets a tenth each of data ``[n, *event]`` aside for validation and test, drawn at random but always the same.

    Args:
        name: What the data are called in an error.
        x: The data.
        labels: Their labels, ``[n]``.

    Raises:
        ValueError: If they are too few.
    """
    arrays = {"train": x} | ({} if labels is None else {"train_labels": labels})
    return Splits(**_split(Path(name), arrays))


def _split(path: Path, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes missing validation and test data from the training data."""
    missing = [name for name in SPLITS if name not in arrays]
    if not missing:
        return arrays
    kept, *aside = split_rows(str(path), len(arrays["train"]), len(missing))
    rows = dict(zip(("train", *missing), (kept, *aside), strict=True))
    for source in ("train_labels", "train"):
        if source in arrays:
            whole = arrays[source]
            arrays |= {source.replace("train", name): whole[index] for name, index in rows.items()}
    return arrays
