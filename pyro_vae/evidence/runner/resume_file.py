"""A file for the finished blocks of a run, from which the same call resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.system.files import replace
from pyro_vae.system.tensor_files import from_bytes, to_bytes

FORMAT = 4  # 1 was a pickle; 2 had one more dimension in the columns of estimate; 3 named one of them "rung"
COLUMN, FINGERPRINT = "column ", "fingerprint "
DAMAGED = "is not a file that an evidence run was kept in, or is damaged"


class Kept:
    """The finished part of a run: columns by name for the first datapoints, in parts.

    Args:
        seed: The seed of the whole run.
        columns: The columns so far, each ``[done, ...]``.
    """

    def __init__(self, seed: int, columns: dict[str, Tensor] | None = None) -> None:
        self.seed, self.parts = seed, [columns] if columns else []

    @property
    def done(self) -> int:
        """The number of finished datapoints."""
        return sum(len(next(iter(part.values()))) for part in self.parts)

    @property
    def columns(self) -> dict[str, Tensor]:
        """The columns by name, ``[done, ...]``; empty if nothing is finished."""
        names = self.parts[0] if self.parts else ()
        return {name: torch.cat([part[name] for part in self.parts]) for name in names}


class ResumeFile:
    """A file for one run, which refuses any other run.

    Args:
        path: The path.
        n: The number of datapoints.
        settings: The settings that change the result, by name: numbers, strings, None, or tensors, compared by value.
        fingerprints: Numbers that identify data and programs, by name, equal up to rounding.
    """

    def __init__(self, path: Path, n: int, settings: Mapping[str, Any], fingerprints: Mapping[str, Tensor]) -> None:
        self.path, self.n = path, n
        self.settings = {name: _in_words(value) for name, value in settings.items()}
        self.fingerprints = {name: value.detach().float().cpu() for name, value in fingerprints.items()}

    def save(self, kept: Kept) -> None:
        """Writes the finished part.

        Raises:
            OSError: If the file cannot be written; the old file is then unchanged.
        """
        tensors = {COLUMN + name: column for name, column in kept.columns.items()}
        tensors |= {FINGERPRINT + name: value for name, value in self.fingerprints.items()}
        content = {"evidence": FORMAT, "seed": kept.seed, "settings": self.settings}
        replace(self.path, to_bytes(tensors, json.dumps(content)))

    def load(self) -> Kept | None:
        """Reads the finished part; None if there is no file.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is damaged, or of another run.
        """
        if not self.path.exists():
            return None
        data = self.path.read_bytes()
        try:
            tensors, text = from_bytes(data)
            content = json.loads(text)
            version, seed, settings = content["evidence"], int(content["seed"]), dict(content["settings"])
            columns, fingerprints = beginning_with(COLUMN, tensors), beginning_with(FINGERPRINT, tensors)
        except MemoryError:
            raise
        except Exception as error:  # libraries may raise anything for foreign content
            raise ValueError(f"{self.path} {DAMAGED}: {str(error) or type(error).__name__}") from error
        if version != FORMAT:
            raise ValueError(f"{self.path} has format {version}; expected {FORMAT}")
        for name, value in self.settings.items():
            if settings.get(name) != value:
                raise ValueError(
                    f"{self.path} is of another run: {name} is {settings.get(name)!r} there and {value!r} here; choose "
                    "another file or delete it"
                )
        for name, value in self.fingerprints.items():
            other = fingerprints.get(name)
            if other is None or not _close(other, value):
                what = "other data or programs" if name == "programs" else f"another run: its {name} is different"
                raise ValueError(f"{self.path} is of {what}; choose another file or delete it")
        shapes = [list(column.shape) for column in columns.values()]
        if any(not shape or shape[0] != shapes[0][0] or not 0 < shape[0] <= self.n for shape in shapes):
            raise ValueError(f"{self.path} {DAMAGED}: its columns have shapes {shapes}, for {self.n} datapoints")
        if "log_prob" in columns and columns["log_prob"].isnan().any():  # other columns may have NaN
            raise ValueError(f"{self.path} {DAMAGED}: it has a log p(x) that is NaN")
        return Kept(seed, columns)

    def check_part(self, kept: Kept, part: dict[str, Tensor]) -> None:
        """Checks that a computed block has the columns of the file.

        Raises:
            ValueError: If it has other columns.
        """
        before, after = (
            {name: (column.dtype, column.shape[1:]) for name, column in each.items()} for each in (kept.parts[0], part)
        )
        if before != after:
            raise ValueError(f"{self.path} has columns {_shapes(before)}; expected {_shapes(after)}")


def beginning_with(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with this prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _in_words(value: Any) -> Any:
    """A setting in JSON; for a tensor, its shape, dtype and a checksum of its values."""
    if not isinstance(value, Tensor):
        return value
    flat = value.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
    return f"a tensor {list(value.shape)} of {value.dtype} with checksum {digest[:16]}"


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-3, equal_nan=True)


def _shapes(columns: dict[str, Any]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, (_, shape) in columns.items()) or "none"
