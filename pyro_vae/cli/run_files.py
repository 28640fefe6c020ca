"""What the command finds in the folder of a run, and writes to it, besides what ``fit`` does."""

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
    """The folder of a run that is given by it, or by one of the checkpoints in it."""
    return run.parent if run.is_file() else run


def data_of(run: Path, options: Data) -> Data:
    """The options given, and of those that are not what the run was trained with.

    Raises:
        FileNotFoundError: If the run does not say what it was trained on, nor do the options.
        ValueError: If what it says is damaged.
    """
    path = folder_of(run) / COMMAND
    if not path.exists() and options.data is None:
        raise FileNotFoundError(f"{str(path)!r} is not there, so that --data has to say which data to take")
    stored = read_json(path)["options"] if path.exists() else {}
    root = options.data_root or stored.get("data-root")
    return Data(
        options.data or stored["data"],
        None if root is None else Path(root),
        options.binarize or stored.get("binarize", "none"),
    )


def by_flag(options: Any) -> dict[str, Any]:
    """The options of a command, as JSON can hold them, by the names that they have on the command line."""
    flags: dict[str, Any] = {}
    for name, value in vars(options).items():
        if is_dataclass(value):
            prefix = f"{name.removesuffix('_options')}." if name.endswith("_options") else ""
            flags |= {prefix + flag: each for flag, each in by_flag(value).items()}
        else:
            flags[name.replace("_", "-")] = json.loads(json.dumps(value, default=str))
    return flags


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that :func:`write_json` has written.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file, which takes the place of the old one when it is whole.

    Raises:
        OSError: If it cannot be written.
    """
    files.replace(path, f"{json.dumps(content, indent=2, allow_nan=False)}\n".encode())
