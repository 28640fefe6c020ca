"""Files in the folder of a run that the command reads and writes, besides those of ``fit``."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from pyro_vae.cli.data import Data
from pyro_vae.system import files

__all__ = ["COMMAND", "EVIDENCE", "by_flag", "data_of", "folder_of", "read_json", "write_json"]

COMMAND, EVIDENCE = "command.json", "evidence.json"


def folder_of(run: Path) -> Path:
    """The folder of a run, from the path of this folder or of a checkpoint in it."""
    return run.parent if run.is_file() else run


def data_of(run: Path, options: Data) -> Data:
    """The given options, and for the others those that the run was trained with.

    Raises:
        FileNotFoundError: If neither the options nor the run name the data.
        ValueError: If the file of the run is damaged.
    """
    path = folder_of(run) / COMMAND
    if not path.exists() and options.data is None:
        raise FileNotFoundError(f"{str(path)!r} does not exist; choose the data with --data")
    stored = read_json(path)["options"] if path.exists() else {}
    root = options.data_root or stored.get("data-root")
    return Data(
        options.data or stored["data"],
        None if root is None else Path(root),
        options.binarize or stored.get("binarize", "none"),
        options.column or tuple(stored.get("column", ())),
        options.labels or stored.get("labels"),
        options.size or tuple(stored.get("size", ())),
        options.crop and stored.get("crop", True),
        options.skip_broken or stored.get("skip-broken", False),
    )


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
    """Reads a file that :func:`write_json` wrote.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged.
    """
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
