"""Files in the folder of a run that the command reads and writes, besides those of ``fit``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_vae.cli.data import Data
from pyro_vae.saving.file_names import checkpoint_of
from pyro_vae.system import files
from pyro_vae.system.warning import warn

if TYPE_CHECKING:
    from torch import Tensor

    from pyro_vae.cli.seen import Seen
    from pyro_vae.tables import Table


COMMAND, EVIDENCE = "command.json", "evidence.json"


def folder_of(run: Path) -> Path:
    """The folder of a run, from the path of this folder or of a checkpoint in it."""
    return run.parent if run.is_file() else run


def check_found(run: Path, options: Data) -> None:
    """Checks that there are the run and the data of a command, without importing torch.

    Raises:
        FileNotFoundError: If not.
        ValueError: If there is no data set of this name, or the file has an unknown format.
    """
    checkpoint_of(run)
    if options.data is not None:
        options.check_found()


def data_of(run: Path, options: Data) -> Data:
    """The given options, and for the others those that the run was trained with.

    Raises:
        FileNotFoundError: If there is no such file, or neither the options nor the run name the data.
        ValueError: If the file of the run is damaged, or there is no data set of this name.
    """
    path = folder_of(run) / COMMAND
    command = read_json(path)
    if not command and options.data is None:
        raise FileNotFoundError(f"{str(path)!r} does not exist; choose the data with --data")
    stored = command.get("options", {})
    root = options.data_root or stored.get("data-root")
    labels = options.labels
    if options.data is None or "table" in command:  # other data may have no labels, for which a table is searched
        labels = labels or stored.get("labels")
    data = Data(
        options.data or stored["data"],
        None if root is None else Path(root),
        options.binarize or stored.get("binarize", "none"),
        options.column or tuple(stored.get("column", ())),
        labels,
        options.array or stored.get("array"),
        options.size or tuple(stored.get("size", ())),
        options.stretch or stored.get("stretch", False),
        options.skip_broken or stored.get("skip-broken", False),
    )
    data.check_found()
    return data


def table_of(run: Path) -> Table | None:
    """How the columns of a table become numbers in this run; None if it was not trained on a table.

    Raises:
        ValueError: If the file of the run is damaged.
    """
    path = folder_of(run) / COMMAND
    stored = read_json(path).get("table")
    if stored is None:
        return None
    from pyro_vae.tables import Table  # which imports pandas

    try:
        return Table.from_json(stored)
    except Exception as error:  # an invalid description may raise anything
        raise ValueError(f"{str(path)!r} is damaged: the description of its table is invalid") from error


def seen_of(run: Path, data: Data, chosen: Data | None = None) -> Seen:
    """The data that the options choose; columns of a table become numbers as in the run.

    Args:
        run: The run.
        data: The options, from :func:`data_of`.
        chosen: The options that the user has given. A column of labels among them must exist; that of the run need not.

    Raises:
        ValueError: If the data cannot be read, a value of a column is invalid, or the chosen labels do not exist.
        OSError: If they cannot be read.
    """
    table = table_of(run)
    if table is None:
        return data.look()
    from pyro_vae.cli.look import read_table
    from pyro_vae.cli.seen import Seen
    from pyro_vae.data.from_file import split

    needed = chosen is not None and chosen.labels is not None
    frame, labels, classes = read_table(Path(str(data.data)), data.labels, needed=needed)
    x = table.tensor(frame)
    splits = split(str(data.data), x, labels)
    return Seen("a table", splits, "columns", table=table, classes=classes, whole=(x, labels))


def rows_of(seen: Seen, data: Data, part: str, chosen: Callable[[int], Any], vae: Any) -> tuple[Tensor, Tensor | None]:
    """A part of the data as the VAE takes them, ``[n, *event]``, and their labels, if there are any.

    Args:
        seen: The data.
        data: The options that choose them.
        part: train, valid, test, or all in the order of the file.
        chosen: Which of n datapoints to use, as an index.
        vae: The VAE.

    Raises:
        ValueError: If all data are asked for, and are larger than memory, or they cannot be binarized.
    """
    if part == "train" and seen.files is not None:
        used, n = len(seen.splits.train), len(seen.files)
        warn(f"the training data are larger than memory: {used} of {n} datapoints are used, drawn at random")
    x, labels = seen.all() if part == "all" else (getattr(seen.splits, part), getattr(seen.splits, f"{part}_labels"))
    rows = chosen(len(x))
    x = data.binarized(x[rows])
    return x.to(vae.event_dtype), None if labels is None else labels[rows]


def by_flag(options: Any) -> dict[str, Any]:
    """The options of a command as JSON values, by their names on the command line."""
    flags: dict[str, Any] = {}
    for name, value in vars(options).items():
        if is_dataclass(value):
            prefix = f"{name.removesuffix('_options')}." if name.endswith("_options") else ""
            flags |= {prefix + flag: each for flag, each in by_flag(value).items()}
        else:
            flags[name.replace("_", "-")] = json.loads(json.dumps(value, default=str))
    return flags


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that :func:`write_json` wrote; empty if there is none.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged.
    """
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file. It replaces an old one only when it is complete.

    Raises:
        OSError: If it cannot be written.
    """
    files.replace(path, f"{json.dumps(content, indent=2, allow_nan=False)}\n".encode())
