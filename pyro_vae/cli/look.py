"""Loads data from a file, a folder or a data set with a name, and describes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Subset

from pyro_vae.cli.seen import ROWS, Seen, seen_arrays
from pyro_vae.data import ArrayFile, ImageFolder, SparseCounts, Splits, read_frame
from pyro_vae.data import load as load_by_name
from pyro_vae.data.choose_arrays import choose_arrays
from pyro_vae.data.class_numbers import class_numbers
from pyro_vae.data.formats import known_format_of
from pyro_vae.data.from_file import as_data, as_splits, read_arrays, split, split_rows
from pyro_vae.data.h5ad_file import read_h5ad
from pyro_vae.data.hugging_face import DatasetImages, array_of, columns_of, labels_of, open_dataset
from pyro_vae.data.open_arrays import BY_ROWS, open_arrays

if TYPE_CHECKING:
    import pandas as pd

    from pyro_vae.cli.data import Data


MOST_NUMBERS = 2**29  # in memory, 2 GiB; larger data are read as they are needed
MOST_HELD_OUT = 2000  # datapoints of larger data for validation, and for test
MOST_SAMPLED = 2**25  # numbers of larger data for each of these, 128 MiB
LEAST_HELD_OUT = 50  # datapoints, however large they are
SMALL_TABLE = 5000  # rows of a table that is small


class Rows(Protocol):
    """Data that can be read by rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row."""

    def __len__(self) -> int: ...
    def tensor(self, indices: Iterable[int] | None = None) -> Tensor:
        """Some rows, or all."""


@lru_cache(maxsize=1)
def look(data: Data) -> Seen:
    """Loads the data that the options choose, and describes them.

    Raises:
        ValueError: If there is no data set of this name, the content of a file is invalid, or it is unclear which
            part of it has the data.
        OSError: If they cannot be read.
    """
    path = Path(data.data or "mnist")
    return _with_labels(_read(path, data)) if data.is_own else _by_name(path, data.data_root)


def _read(path: Path, data: Data) -> Seen:
    """Reads a file or folder, by its format."""
    labels, array, size = data.labels, data.array, data.size
    if len(size) > 2:
        raise ValueError(f"--size is {' '.join(map(str, size))}; expected one number, or height and width")
    scaled = size if len(size) == 2 else size[0] if size else None
    kind = known_format_of(path)
    if kind == "images":
        images = ImageFolder(path, scaled, crop=not data.stretch, skip_broken=data.skip_broken)
        return replace(_rows(path, images, images.labels), classes=tuple(images.classes))
    if kind == "table":
        return _table(path, data.column, labels)
    if kind == "counts":
        if path.suffix.lower() != ".h5ad":
            _check_no_names(path, array, labels)
            return _rows(path, SparseCounts.read(path), None, "sparse counts")
        matrix, numbers, classes = read_h5ad(path, array, labels)
        return replace(_rows(path, SparseCounts(matrix), numbers, "sparse counts"), classes=classes)
    if kind == "arrays":
        return _file_of_arrays(path, array, labels)
    dataset = open_dataset(path)
    images_of, arrays_of = columns_of(dataset)
    found = [array] if array is not None else images_of + arrays_of
    if not found:
        return _table(path, data.column, labels)
    if len(found) > 1 or found[0] not in images_of + arrays_of:
        choices = ", ".join(images_of + arrays_of) or "none"
        raise ValueError(
            f"the data set {str(path)!r} has images or arrays in the columns {choices}; choose one with array=NAME"
        )
    numbers, classes = labels_of(path, dataset, labels)
    if found[0] in images_of:
        source = DatasetImages(path, dataset, found[0], scaled, crop=not data.stretch, skip_broken=data.skip_broken)
        return replace(_rows(path, source, None if numbers is None else numbers[source.kept]), classes=classes)
    x = as_data(path, found[0], torch.from_numpy(array_of(path, dataset, found[0])))
    return replace(_in_memory(path, x, numbers), classes=classes)


def _check_no_names(path: Path, array: str | None, labels: str | None) -> None:
    for option, name in ("array", array), ("labels", labels):
        if name is not None:
            raise ValueError(f"{option} is {name!r}; the sparse matrix {str(path)!r} has no names")


def _by_name(path: Path, root: Path | None) -> Seen:
    if path.is_file():
        raise ValueError(f"the data file {str(path)!r} has an unknown format: its name has no suffix")
    try:
        return Seen(str(path), load_by_name(str(path), root), "bernoulli")
    except FileNotFoundError as error:
        raise FileNotFoundError(str(error).replace(" needs root=,", " needs --data-root,")) from error


def _with_labels(seen: Seen) -> Seen:
    """The same, described with the number of classes if there are labels."""
    labels = seen.splits.train_labels if seen.whole is None else seen.whole[1]
    if labels is None or seen.table is not None:
        return seen
    return replace(seen, words=f"{seen.words}, {len(labels.unique())} classes")


def _in_memory(path: Path, x: Tensor, labels: Tensor | None, what: str = "") -> Seen:
    return replace(seen_arrays(split(str(path), x, labels), what), whole=(x, labels))


def _file_of_arrays(path: Path, array: str | None, labels: str | None) -> Seen:
    with open_arrays(path) as content:
        names = choose_arrays(path, content, array, labels)
        numbers = prod(getattr(content[names["train"]], "shape", ()))
    if numbers > MOST_NUMBERS and path.suffix.lower() in BY_ROWS:
        train, *others = (
            ArrayFile(path, names[part], names.get(f"{part}_labels"))
            for part in ("train", "valid", "test")
            if part in names
        )
        parts: list[str] = [part for part in ("valid", "test") if part in names]
        held_out = dict(zip(parts, others, strict=True))
        return _larger_than_memory(path, train, train.labels, held_out=held_out)
    arrays = read_arrays(path, array, labels)
    is_one = not arrays.keys() - {"train", "train_labels"}
    whole = (arrays["train"], arrays.get("train_labels")) if is_one else None
    return replace(seen_arrays(as_splits(path, arrays)), whole=whole)


def _rows(path: Path, source: Rows, labels: Tensor | None, what: str = "") -> Seen:
    """Data of one source: all in memory, or, if they are too large, read as they are needed."""
    if len(source) * prod(source.shape) > MOST_NUMBERS:
        return _larger_than_memory(path, source, labels, what)
    return _in_memory(path, source.tensor(), labels, what)


def _larger_than_memory(
    path: Path, source: Rows, labels: Tensor | None, what: str = "", held_out: Mapping[str, ArrayFile] | None = None
) -> Seen:
    """Data that are read as they are needed; some of them are in memory, to look at and to evaluate."""
    held_out = held_out or {}
    missing = [part for part in ("valid", "test") if part not in held_out]
    train, *aside = split_rows(str(path), len(source), len(missing))
    chosen: dict[str, tuple[Rows, Tensor | None, Tensor]] = {"train": (source, labels, train[:ROWS])}
    chosen |= {part: (source, labels, rows[:MOST_HELD_OUT]) for part, rows in zip(missing, aside, strict=True)}
    chosen |= {part: (file, file.labels, torch.arange(len(file))[:MOST_HELD_OUT]) for part, file in held_out.items()}
    arrays: dict[str, Any] = {}
    for part, (of, classes, rows) in chosen.items():
        rows = rows[: max(LEAST_HELD_OUT, MOST_SAMPLED // prod(source.shape))]
        arrays[part] = of.tensor(rows.tolist())
        arrays[f"{part}_labels"] = None if classes is None else classes[rows]
    seen = seen_arrays(Splits(**arrays), what, len(source))
    files: Any = source  # a Dataset, too
    return replace(
        seen, words=f"{seen.words}, larger than memory: read as they are needed", files=Subset(files, train.tolist())
    )


def _table(path: Path, kinds: tuple[str, ...], labels: str | None) -> Seen:
    from pyro_vae.tables import Table  # which imports pandas

    frame, found, classes = read_table(path, labels)
    chosen = dict(_kind(each) for each in kinds)
    table = Table.of(frame, chosen)
    x = table.tensor(frame)
    lines = [f"a table of {len(frame)} rows and {len(table.columns)} columns:", *table.summary().splitlines()]
    options = _options_of_table(len(x), x.shape[1])
    splits = split(str(path), x, found)
    words = "\n  ".join(lines)
    return Seen(words, splits, "columns", table=table, options=options, classes=classes, whole=(x, found))


def _options_of_table(rows: int, columns: int) -> dict[str, list[str]]:
    """Options that worked well for missing values in tables of a few hundred rows (``benchmarks/impute_tables.py``)."""
    options = {"--posterior": ["product-of-experts"], "--latent-dim": [str(min(16, columns // 2 + 2))]}
    if rows < SMALL_TABLE:
        options |= {"--network.hidden": ["32"], "--lr": ["0.02"], "--lr-decay": ["linear"], "--batch-size": ["64"]}
        options |= {"--epochs": [str(steps_of_table(rows) * 64 // max(64, rows))]}  # an epoch has at least one step
    return options


def steps_of_table(rows: int) -> int:
    """The number of training steps for a small table: about 320 epochs, but 1000 to 3000 steps."""
    return min(3000, max(1000, 5 * rows))


def read_table(
    path: Path, labels: str | None, *, needed: bool = True
) -> tuple[pd.DataFrame, Tensor | None, tuple[str, ...]]:
    """A table without its column of labels, the labels 0, 1, 2, ..., ``[n]``, None if there are none, and their names.

    Args:
        path: The table.
        labels: The column with the labels, if there is one.
        needed: Whether the table must have this column.

    Raises:
        ValueError: If the table cannot be read, or has no such column.
        OSError: Likewise.
    """
    frame = read_frame(path)
    if needed and labels is not None and labels not in frame:
        raise ValueError(f"labels is {labels!r}; the table {str(path)!r} has {', '.join(frame)}")
    if labels not in frame:
        return frame, None, ()
    return frame.drop(columns=labels), *class_numbers(frame[labels])


def _kind(option: str) -> tuple[str, str]:
    name, colon, kind = option.rpartition(":")
    if not colon or not name:
        raise ValueError(f"--column is {option!r}; expected NAME:KIND, such as age:positive")
    return name, kind
