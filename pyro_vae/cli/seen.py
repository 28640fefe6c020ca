"""What data are, and which parts suit them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Subset

from pyro_vae.data import ImageFolder, SparseCounts, Splits, read_frame
from pyro_vae.data import load as load_by_name
from pyro_vae.data.frames import FRAMES
from pyro_vae.data.from_file import as_splits, is_sparse, read_arrays, split, split_rows

if TYPE_CHECKING:
    import pandas as pd

    from pyro_vae.tables import Table

__all__ = ["Seen", "look", "read_table"]

ROWS = 2000  # that are looked at, to see what kind of values data have
MOST_NUMBERS = 2**29  # of images in memory, 2 GiB
MOST_HELD_OUT = 2000  # images of a larger folder to validate and to test with


@dataclass(frozen=True)
class Seen:
    """Data, what they are, and which parts suit them.

    Attributes:
        words: What they are, such as "500 colour images, 64 x 64".
        splits: The data.
        likelihood: The name of the likelihood that suits them.
        network: The name of the networks that suit them.
        standardize: Whether networks should get standardized data.
        table: For tables, how columns become numbers.
    """

    words: str
    splits: Splits
    likelihood: str
    network: str = "mlp"
    standardize: bool = False
    table: Table | None = None
    #: The names of the labels 0, 1, 2, ..., if they have names.
    classes: tuple[str, ...] = ()
    #: All data and labels, in the order of the file.
    whole: tuple[Tensor, Tensor | None] | None = None
    #: Training data that are too large for memory; ``splits.train`` is some of them.
    files: Subset[Tensor] | None = None

    def all(self) -> tuple[Tensor, Tensor | None]:
        """All data and their labels, in the order of the file if they are in one array."""
        if self.files is not None:
            raise ValueError("the images of the folder are too many to be taken at once; choose --split test or valid")
        if self.whole is not None:
            return self.whole
        splits = self.splits
        labels = [splits.train_labels, splits.valid_labels, splits.test_labels]
        known = [each for each in labels if each is not None]
        together = torch.cat(known) if len(known) == len(labels) else None
        return torch.cat([splits.train, splits.valid, splits.test]), together

    @property
    def has_gaps(self) -> bool:
        """Whether values are missing."""
        return self.splits.train.is_floating_point() and bool(self.splits.train.isnan().any())


@lru_cache(maxsize=1)
def look(
    name: str,
    root: Path | None = None,
    kinds: tuple[str, ...] = (),
    labels: str | None = None,
    size: tuple[int, ...] = (),
    crop: bool = True,
    skip_broken: bool = False,
) -> Seen:
    """Loads data, and says what they are.

    Args:
        name: The name of a data set, or a path.
        root: The folder of a data set with a name.
        kinds: For tables, ``NAME:KIND`` for columns whose kind is known.
        labels: For tables, the column with labels, which is not modelled.
        size: For folders of images, the size to scale them to.
        crop: For folders of images, whether to cut rather than to stretch.
        skip_broken: For folders of images, whether to leave out those that cannot be read.

    Raises:
        ValueError: If there is no data set of this name, the content of a file is invalid, or it cannot be told what
            the data are.
        OSError: If they cannot be read.
    """
    path = Path(name)
    if path.is_dir():
        return _images(path, size, crop, skip_broken)
    suffix = path.suffix.lower()
    if suffix in FRAMES:
        return _table(path, kinds, labels)
    if suffix == ".h5ad" or (suffix == ".npz" and path.is_file() and is_sparse(path)):
        counts = SparseCounts.read(path)
        x = torch.stack(counts.__getitems__(range(len(counts))))
        return replace(_arrays(split(str(path), x), "sparse counts"), whole=(x, None))
    if suffix:
        arrays = read_arrays(path)
        is_one = not arrays.keys() - {"train", "train_labels"}
        whole = (arrays["train"], arrays.get("train_labels")) if is_one else None
        return replace(_arrays(as_splits(path, arrays)), whole=whole)
    return Seen(name, load_by_name(name, root), "bernoulli")


def _images(path: Path, size: tuple[int, ...], crop: bool, skip_broken: bool) -> Seen:
    if len(size) > 2:
        raise ValueError(f"--size is {' '.join(map(str, size))}; expected one number, or height and width")
    chosen = size if len(size) == 2 else size[0] if size else None
    images = ImageFolder(path, chosen, crop=crop, skip_broken=skip_broken)
    if len(images) * prod(images.shape) > MOST_NUMBERS:
        seen = _large_folder(path, images)
    else:
        x = images.tensor()
        seen = replace(_arrays(split(str(path), x, images.labels)), whole=(x, images.labels))
    classes = f", {len(images.classes)} classes" if images.labels is not None else ""
    return replace(seen, words=seen.words + classes, classes=tuple(images.classes))


def _large_folder(path: Path, images: ImageFolder) -> Seen:
    """Images that are read as they are needed; some of them are in memory, to look at and to evaluate."""
    train, *held_out = split_rows(str(path), len(images))
    parts = [train[:ROWS], *(rows[:MOST_HELD_OUT] for rows in held_out)]
    labels = [None if images.labels is None else images.labels[rows] for rows in parts]
    splits = Splits(*(images.tensor(rows.tolist()) for rows in parts), *labels)
    seen = _arrays(splits)
    total = sum(len(part) for part in parts)
    words = seen.words.replace(str(total), str(len(images)), 1) + ", read from their files as needed"
    return replace(seen, words=words, files=Subset(images, train.tolist()))


def _table(path: Path, kinds: tuple[str, ...], labels: str | None) -> Seen:
    from pyro_vae.tables import Table  # which imports pandas

    frame, found = read_table(path, labels)
    if labels is not None and found is None:
        raise ValueError(f"--labels is {labels!r}; the table {str(path)!r} has {', '.join(frame)}")
    chosen = dict(_kind(each) for each in kinds)
    table = Table.of(frame, chosen)
    x = table.tensor(frame)
    lines = [f"a table of {len(frame)} rows and {len(table.columns)} columns:", *table.summary().splitlines()]
    return Seen("\n  ".join(lines), split(str(path), x, found), "columns", table=table)


def read_table(path: Path, labels: str | None) -> tuple[pd.DataFrame, Tensor | None]:
    """A table without its column of labels, and the labels 0, 1, 2, ..., ``[n]``; None if it has no such column.

    Raises:
        ValueError: If the table cannot be read.
        OSError: Likewise.
    """
    frame = read_frame(path)
    if labels not in frame:
        return frame, None
    return frame.drop(columns=labels), torch.from_numpy(frame[labels].factorize(sort=True)[0].astype("int64"))


def _kind(option: str) -> tuple[str, str]:
    name, colon, kind = option.rpartition(":")
    if not colon or not name:
        raise ValueError(f"--column is {option!r}; expected NAME:KIND, such as age:positive")
    return name, kind


def _arrays(splits: Splits, what: str = "") -> Seen:
    """By the values and the shape of an array ``[n, *event]``."""
    n = sum(len(part) for part in (splits.train, splits.valid, splits.test))
    event = tuple(splits.train.shape[1:])
    values, likelihood = _values(splits.train[:ROWS], event)
    words, network = _shape(n, event, values)
    gaps = ", with missing values" if splits.train.is_floating_point() and splits.train.isnan().any() else ""
    return Seen((f"{what}, " if what else "") + words + gaps, splits, likelihood, network, values == "real numbers")


def _values(x: Tensor, event: tuple[int, ...]) -> tuple[str, str]:
    known = x[~x.isnan()]
    if not known.numel():
        raise ValueError("the data have no values: all are missing")
    whole = bool((known % 1 == 0).all())
    if whole and known.min() >= 0 and known.max() <= 1:
        return "0 and 1", "bernoulli"
    if whole and known.min() >= 0:
        return "counts", "negative-binomial"
    if known.min() >= 0 and known.max() <= 1:
        levels = known * 255
        if bool(((levels - levels.round()).abs() < 0.01).all()):
            return "8 bit", "discretized-logistic"
        return "numbers from 0 to 1", "continuous-bernoulli" if len(event) == 3 else "normal"
    return "real numbers", "normal"


def _shape(n: int, event: tuple[int, ...], values: str) -> tuple[str, str]:
    if len(event) == 3 and event[0] in (1, 3, 4):
        colour = {1: "binary" if values == "0 and 1" else "grey", 3: "colour", 4: "four-channel"}[event[0]]
        deep = values not in ("0 and 1", "real numbers") and min(event[1:]) >= 8
        bits = "" if values == "0 and 1" else f", {values}"
        return f"{n} {colour} images, {event[1]} x {event[2]}{bits}", "convolutional" if deep else "mlp"
    if len(event) == 2:
        return f"{n} series of {event[0]} steps and {event[1]} features, {values}", "series"
    if len(event) == 1:
        return f"{n} vectors of {event[0]} values, {values}", "mlp"
    return f"{n} arrays of shape {list(event)}, {values}", "mlp"
