"""Data sets saved by the library datasets of Hugging Face: images, arrays and tables."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pyro_vae.data.class_numbers import class_numbers
from pyro_vae.data.images import Images
from pyro_vae.data.reading import RefusedError, reading

if TYPE_CHECKING:
    import pandas as pd


def open_dataset(path: Path) -> Any:
    """Opens a folder that ``save_to_disk`` wrote, or a file .arrow, without reading its values.

    Raises:
        OSError: If it cannot be read.
        ModuleNotFoundError: If datasets is not installed.
        ValueError: If it is damaged, empty, or has several data sets.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    with reading(path, "data set"):
        import datasets

        if path.is_dir():
            content = datasets.load_from_disk(str(path))
            if isinstance(content, datasets.DatasetDict):
                names = ", ".join(repr(str(path / name)) for name in content)
                raise RefusedError(f"the folder {str(path)!r} has {len(content)} data sets; choose one: {names}")
        else:
            content = datasets.Dataset.from_file(str(path))
    if not len(content):
        raise ValueError(f"the data set {str(path)!r} has no rows")
    return content


def columns_of(dataset: Any) -> tuple[list[str], list[str]]:
    """The names of the columns with images, and of those with arrays of a fixed shape."""
    import datasets

    images, arrays = [], []
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            images.append(name)
        elif getattr(feature, "shape", None) is not None or getattr(feature, "length", -1) > 0:
            arrays.append(name)
    return images, arrays


def labels_of(path: Path, dataset: Any, name: str | None) -> tuple[Tensor | None, tuple[str, ...]]:
    """The labels 0, 1, ..., ``[n]``, and their names: of this column, or else of the only one of the type ClassLabel.

    Raises:
        ValueError: If there is no such column.
    """
    import datasets

    if name is not None and name not in dataset.features:
        raise ValueError(f"labels is {name!r}; the data set {str(path)!r} has {', '.join(dataset.features)}")
    found = [each for each, feature in dataset.features.items() if isinstance(feature, datasets.ClassLabel)]
    name = name or (found[0] if len(found) == 1 else None)
    if name is None:
        return None, ()
    values, names = dataset.select_columns(name).to_pandas()[name], getattr(dataset.features[name], "names", None)
    if names is not None:
        import pandas as pd

        values = pd.Series(pd.Categorical.from_codes(values.fillna(-1).astype(int), names))
    return class_numbers(values)


def array_of(path: Path, dataset: Any, name: str) -> np.ndarray:
    """A column of arrays of one shape, ``[n, *event]``.

    Raises:
        ValueError: If its values cannot be read.
    """
    feature = dataset.features[name]
    dtype = getattr(feature, "dtype", None) if hasattr(feature, "shape") else feature.feature.dtype
    with reading(path, "data set"):
        return np.asarray(dataset.select_columns(name).with_format("numpy")[:][name]).astype(dtype)


def frame_of(path: Path) -> pd.DataFrame:
    """A data set as a table: columns of classes have their names, and columns of images and arrays are refused.

    Raises:
        ValueError: If it is not a table; and as :func:`open_dataset`.
    """
    dataset = open_dataset(path)
    images, arrays = columns_of(dataset)
    if images or arrays:
        raise ValueError(f"the data set {str(path)!r} is not a table: {(images + arrays)[0]!r} has images or arrays")
    with reading(path, "data set"):
        frame = dataset.to_pandas()
    for name, feature in dataset.features.items():
        if getattr(feature, "names", None) is not None:
            frame[name] = frame[name].map(dict(enumerate(feature.names)))
    return frame


class DatasetImages(Images):
    """The images in a column of a data set of Hugging Face, each ``[channels, height, width]`` of levels k / 255.

    Args:
        path: The folder or file, for messages.
        dataset: The data set.
        column: The column of images.
        size: As in :class:`ImageFolder`.
        crop: Likewise.
        skip_broken: Likewise.

    Raises:
        ValueError: If an image cannot be read, or images have different sizes and none is given.
    """

    def __init__(
        self,
        path: Path,
        dataset: Any,
        column: str,
        size: int | Sequence[int] | None = None,
        *,
        crop: bool = True,
        skip_broken: bool = False,
    ) -> None:
        import datasets

        self._files = dataset.select_columns(column).cast_column(column, datasets.Image(decode=False))
        self._column = column
        super().__init__(str(path), len(dataset), size, crop, skip_broken)

    def _file(self, place: int) -> Path | IO[bytes]:
        content = self._files[place][self._column]
        if content is None:
            raise ValueError("there is no image")
        return Path(content["path"]) if content["bytes"] is None else io.BytesIO(content["bytes"])

    def _name(self, place: int) -> str:
        return f"{place} in {self.source!r}"
