"""Reads data sets from files of arrays, without executing anything in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.data.choose_arrays import LABELS, SPLITS, choose_arrays
from pyro_vae.data.exact import check_exact
from pyro_vae.data.layout import CHANNELS, Layout
from pyro_vae.data.open_arrays import open_arrays, read_tensor
from pyro_vae.data.splits import Splits


def as_splits(path: Path, arrays: dict[str, Tensor]) -> Splits:
    """Splits the data of a file if they are not split yet.

    If valid or test is missing, a tenth of the training data is set aside for it, drawn at random but always the same.

    Raises:
        ValueError: If there are too few datapoints.
    """
    missing = [name for name in SPLITS if name not in arrays]
    if missing:
        kept, *aside = split_rows(str(path), len(arrays["train"]), len(missing))
        rows = dict(zip(("train", *missing), (kept, *aside), strict=True))
        for source in ("train_labels", "train"):
            if source in arrays:
                whole = arrays[source]
                arrays |= {source.replace("train", name): whole[index] for name, index in rows.items()}
    return Splits(**arrays)


def read_arrays(path: Path, array: str | None = None, labels: str | None = None) -> dict[str, Tensor]:
    """Reads a file of one array ``[n, *event]``, or of several: train, valid, test, train_labels, ...

    Bytes are divided by 255, all other numbers become floats. ``[n, height, width]`` with values from 0 to 1 becomes
    ``[n, 1, height, width]``, unless it is padded with NaN as series are. Channels that are last become first.

    Args:
        path: The file: one of ``ARRAYS``.
        array: The name of the array with the data, if the file has several.
        labels: The name of the array with the labels.

    Raises:
        OSError: If the file cannot be read.
        ModuleNotFoundError: If a package that reads such files is not installed.
        ValueError: If it is damaged, or its content is not as expected.
    """
    with open_arrays(path) as content:
        names = choose_arrays(path, content, array, labels)
        arrays = {
            part: as_data(path, name, read_tensor(path, name, content[name]))
            for part, name in names.items()
            if part in SPLITS
        }
        arrays |= {part: read_tensor(path, name, content[name]) for part, name in names.items() if part in LABELS}
    check_labels(path, arrays, names)
    return arrays


def check_labels(path: Path, arrays: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Checks that there is one label for each datapoint.

    Args:
        path: The file.
        arrays: Data and labels; data need only have a length.
        names: The names of the arrays in the file.

    Raises:
        ValueError: If not.
    """
    for part in SPLITS:
        labels = arrays.get(f"{part}_labels")
        if labels is not None and part in arrays and labels.shape != (len(arrays[part]),):
            raise ValueError(
                f"{names[f'{part}_labels']} of the data file {str(path)!r} has shape {list(labels.shape)}; expected "
                f"[{len(arrays[part])}], one label for each datapoint"
            )


def as_data(path: Path, name: str, x: Tensor) -> Tensor:
    """The numbers of an array ``[n, ...]`` as data ``[n, *event]``; see :class:`Layout`.

    Raises:
        ValueError: If they are not data, or infinite.
    """
    check_data(path, name, x)
    check_exact(f"{name} of the data file {str(path)!r}", x)
    return Layout.of(x)(x)


def check_data(path: Path, name: str, array: Any) -> None:
    """Checks the shape and dtype of an array in a file.

    Raises:
        ValueError: If they are not those of data ``[n, *event]``.
    """
    shape = list(array.shape)
    if len(shape) < 2 or 0 in shape or "complex" in str(array.dtype):
        dtype = str(array.dtype).removeprefix("torch.")
        raise ValueError(
            f"{name} of the data file {str(path)!r} is {dtype} of shape {shape}; expected numbers [n, *event], with at "
            "least one number"
        )
    if len(shape) == 3 and shape[-1] in CHANNELS[1:] and "uint8" in str(array.dtype):
        raise ValueError(
            f"{name} of the data file {str(path)!r} has bytes of shape {shape}, which look like one colour image; "
            "expected images [n, height, width], or [n, height, width, channels]"
        )


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
        name: The name of the data in errors.
        x: The data.
        labels: Their labels, ``[n]``.

    Raises:
        ValueError: If there are too few datapoints.
    """
    arrays = {"train": x} | ({} if labels is None else {"train_labels": labels})
    return as_splits(Path(name), arrays)
