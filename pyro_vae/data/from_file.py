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
from pyro_vae.data.arrays import as_tensor
from pyro_vae.data.npz import reason

__all__ = ["read_splits"]

SPLITS = ("train", "valid", "test")
LABELS = ("train_labels", "valid_labels", "test_labels")


def read_splits(path: Path) -> Splits:
    """Reads a .npy, .npz or .pt file with one array ``[n, *event]``, or several: train, valid, test, train_labels, ...

    If there is no validation or test data, a tenth of the training data is used for each, chosen at random with a fixed
    seed. Bytes are divided by 255; all other numbers become floats; ``[n, height, width]`` becomes
    ``[n, 1, height, width]``.

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
    return Splits(**_split(path, arrays))


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
    return x.unsqueeze(1) if x.ndim == 3 else x


def _split(path: Path, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes missing validation and test data from the training data."""
    missing = [name for name in SPLITS if name not in arrays]
    if not missing:
        return arrays
    n = len(arrays["train"])
    tenth = -(-n // 10)
    if n <= len(missing) * tenth:
        raise ValueError(f"train of the data file {str(path)!r} has {n} datapoints, too few to split")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    kept, *aside = order.split([n - len(missing) * tenth, *[tenth] * len(missing)])
    rows = dict(zip(("train", *missing), (kept, *aside), strict=True))
    for source in ("train_labels", "train"):
        if source in arrays:
            whole = arrays[source]
            arrays |= {source.replace("train", name): whole[index] for name, index in rows.items()}
    return arrays
