"""A run of training: how far it is, what it has seen, and the folder that it is kept in."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.folders import writable_folder
from pyro_vae.training.checkpoint import CheckpointError, pack, read, unpack, write
from pyro_vae.training.description import NotDescribable, describe
from pyro_vae.training.loading import BEST, LAST, NOT_WEIGHTS, load_weights

__all__ = ["Progress", "Run", "RunFolder"]

Row = dict[str, Any]


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: The number of epochs that are done.
        batch: The number of batches of the next one that are done.
        step: The number of steps that are done.
        loss: The sum of their losses in this epoch.
        rows: The number of their datapoints.
        skipped: The number of them that were without an update, since something was not finite.
        seconds: The time that the run has taken, and in this epoch ``epoch_seconds``.
        best_epoch: The epoch with the lowest validation loss, from 1; 0 before there is one.
        best_loss: That loss.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    rows: int = 0
    skipped: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    best_epoch: int = 0
    best_loss: float = float("inf")


@dataclass
class Run:
    """What :func:`~pyro_vae.fit` returns, and what it calls callbacks with.

    Attributes:
        vae: The VAE that is trained.
        history: A row for each epoch, as a dictionary: ``pandas.DataFrame(run.history)`` makes a table of them.
        progress: How far it is.
        epochs: How far it is to go.
        out: The folder that it is kept in, or None.
        is_done: Whether this was the last epoch.
    """

    vae: nn.Module
    epochs: int
    out: Path | None = None
    history: list[Row] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    is_done: bool = False

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the lowest validation loss, from 1; None without validation."""
        return self.progress.best_epoch or None

    @property
    def seconds(self) -> float:
        """How long training has taken, validation and checkpoints included, over all of its sessions."""
        return self.progress.seconds


@dataclass
class RunFolder:
    """The files of a run: ``last.safetensors`` to go on from, ``best.safetensors``, ``run.json``, ``history.csv``.

    Args:
        path: The folder.
        settings: What must be the same when the run goes on, by name.
    """

    path: Path
    settings: dict[str, Any]
    description: dict[str, Any] | None = None
    not_describable: str = ""
    _saved_best: int = 0  # the epoch

    @classmethod
    def open(cls, path: str | Path, settings: dict[str, Any], resume: bool, is_first: bool) -> RunFolder:
        """Makes the folder, if need be; only the first process writes to it.

        Raises:
            OSError: If nothing can be written to it.
            FileExistsError: If there is a run in it that is not to go on.
        """
        folder = cls(writable_folder(path) if is_first else Path(path), settings)
        if folder.exists and not resume:
            raise FileExistsError(
                f"there is a run in {str(path)!r} already: resume=True goes on with it; or choose another folder"
            )
        return folder

    @property
    def exists(self) -> bool:
        """Whether there is something to go on from."""
        return (self.path / LAST).exists()

    def describe(self, vae: nn.Module) -> None:
        """Finds out whether the VAE can be rebuilt from the folder alone, and writes ``run.json``, for people."""
        try:
            self.description = describe(vae)
        except NotDescribable as error:
            self.not_describable = str(error)
        text = json.dumps({**self._about(), "settings": self.settings, "vae": self.description}, indent=2)
        new = self.path / ".run.json.new"
        new.write_text(text + "\n")
        new.replace(self.path / "run.json")

    def save(self, run: Run, state: dict[str, Any], best: dict[str, Tensor] | None) -> None:
        """Writes all that a run needs to go on, then the files that are made of it.

        Raises:
            OSError: If a file cannot be written; what was there before is as it was.
        """
        tensors = dict(run.vae.state_dict())
        content = {
            **self._about(),
            "settings": self.settings,
            "progress": asdict(run.progress),
            "history": run.history,
            "state": pack(f"{NOT_WEIGHTS}state", {**state, "best": best}, tensors),
        }
        write(self.path / LAST, tensors, content)
        if best is not None and self._saved_best != run.progress.best_epoch:
            row = run.history[run.progress.best_epoch - 1]
            write(self.path / BEST, best, {**self._about(), "row": row})
            self._saved_best = run.progress.best_epoch
        self._save_history(run.history)

    def restore(self, run: Run) -> tuple[dict[str, Any], dict[str, Tensor] | None]:
        """Loads what was saved into a run. Returns the state and the best weights.

        Raises:
            CheckpointError: If it cannot be used, with the run as it was.
        """
        path = self.path / LAST
        tensors, content = read(path)
        if "progress" not in content:
            raise CheckpointError(f"{path} holds weights, but no run to go on with")
        for name, value in self.settings.items():
            there = content["settings"].get(name)
            if there != json.loads(json.dumps(value)):
                raise CheckpointError(
                    f"{path} is of another run: {name} is {there!r} there and {value!r} here; choose another folder, "
                    "or the same settings"
                )
        load_weights(path, run.vae, tensors)
        self.description, self.not_describable = content["vae"], content["not_describable"]
        run.progress = Progress(**content["progress"])
        run.history[:] = content["history"]
        state = unpack(content["state"], tensors)
        return state, state.pop("best")

    def _about(self) -> dict[str, Any]:
        return {"versions": _versions(), "vae": self.description, "not_describable": self.not_describable}

    def _save_history(self, history: list[Row]) -> None:
        new = self.path / ".history.csv.new"
        with new.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(history[0]) if history else ["epoch"])
            writer.writeheader()
            writer.writerows(history)
        os.replace(new, self.path / "history.csv")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for package, name in (("pyro_vae", "pyro-vae"), ("pyro", "pyro-ppl"), ("zuko", "zuko")):
        try:
            versions[package] = version(name)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return versions


Callback = Callable[[Run], Any]
