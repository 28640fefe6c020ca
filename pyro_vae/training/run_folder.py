"""The folder in which a run is saved."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pyro_vae.processes import Processes, of_the_first
from pyro_vae.saving.checkpoint import CheckpointError, blaming, pack, read, replace, unpack, write
from pyro_vae.saving.description import describe_if_possible
from pyro_vae.saving.file_names import BEST, LAST, MODEL, RUN
from pyro_vae.saving.loading import NOT_WEIGHTS, check_weights, weights_among
from pyro_vae.saving.versions import versions
from pyro_vae.system.files import writable_folder
from pyro_vae.system.lock import locked
from pyro_vae.training.run import Row, Run, RunProgress


@contextmanager
def kept_to_itself(path: str | Path | None, processes: Processes) -> Iterator[None]:
    """Creates the folder, if a path is given, and locks it against other runs.

    Raises:
        OSError: If it cannot be written to, or another run is in it.
    """
    with ExitStack() as stack:
        if path is not None:
            of_the_first(lambda: stack.enter_context(locked(writable_folder(path))), processes)
        yield


@dataclass
class RunFolder:
    """The files of a run: ``last.safetensors`` (to resume it), ``best.safetensors``, ``run.json``, ``history.csv``.

    Args:
        path: The folder.
        settings: What must be the same when the run is resumed, by name.
    """

    path: Path
    settings: dict[str, Any]
    description: dict[str, Any] | None = None
    not_describable: str = ""
    _saved_best: int = 0  # the epoch

    @classmethod
    def open(cls, path: str | Path, settings: dict[str, Any], resume: bool, is_first: bool) -> RunFolder:
        """Creates the folder if needed; only the first process writes to it.

        Raises:
            OSError: If the folder cannot be written to.
            FileExistsError: If there is a run in it that is not to be resumed, or cannot be.
        """
        folder = cls(writable_folder(path) if is_first else Path(path), settings)
        if folder.exists and not resume:
            raise FileExistsError(
                f"there is a run in {str(path)!r} already: pass resume=True to resume it, or choose another folder"
            )
        for name in (BEST, MODEL):
            if not folder.exists and (folder.path / name).exists():
                raise FileExistsError(f"in {str(path)!r} there is a {name}, but no {LAST}: choose another folder")
        return folder

    @property
    def exists(self) -> bool:
        """Whether there is a run that can be resumed."""
        return (self.path / LAST).exists()

    def describe(self, vae: nn.Module) -> None:
        """Finds out whether the VAE can be rebuilt from the folder alone, and writes ``run.json`` for people to read.

        Raises:
            OSError: If it cannot be written.
        """
        self.description, self.not_describable = describe_if_possible(vae)
        text = json.dumps({**self._about(), "settings": self.settings, "vae": self.description}, indent=2)
        replace(self.path / RUN, f"{text}\n".encode())

    def save(self, run: Run, weights: dict[str, Tensor], state: dict[str, Any], best: dict[str, Tensor] | None) -> None:
        """Writes all that is needed to resume the run, then the other files.

        Raises:
            OSError: If a file cannot be written; the old one stays as it was.
        """
        tensors = dict(weights)
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
        replace(self.path / "history.csv", _table(run.history))

    def restore(self, run: Run, load: Callable[[dict[str, Any]], None] | None) -> dict[str, Tensor] | None:
        """Restores a run as it was saved.

        Args:
            run: Gets the progress and the history, and its VAE the weights if everything else is valid.
            load: Loads the saved state, before the weights. None leaves it out, and settings may differ.

        Returns:
            The best weights, if there was validation on the same data.

        Raises:
            CheckpointError: If the file cannot be used; the weights stay as they were.
        """
        path = self.path / LAST
        tensors, content = read(path)
        if "progress" not in content:
            raise CheckpointError(f"{path} holds weights, but no run that could be resumed")
        with blaming(path, "cannot be resumed"):
            if load is not None:
                self._check_settings(path, content["settings"])
            run.progress, run.history[:] = _read_progress(content["progress"], content["history"])
            self.description, self.not_describable = content["vae"], content["not_describable"]
            weights = weights_among(tensors)
            check_weights(path, run.vae, weights)
            state = unpack(content["state"], tensors)
            best = state.pop("best")
            if best is not None:
                check_weights(path, run.vae, best)
            if load is not None:
                load(state)
            elif self._differs("valid", content["settings"]):  # the losses cannot be compared
                run.progress.best_epoch, run.progress.best_loss, best = 0, math.inf, None
        run.vae.load_state_dict(weights)
        return best

    def _differs(self, name: str, settings: dict[str, Any]) -> bool:
        return settings.get(name) != json.loads(json.dumps(self.settings.get(name)))

    def _about(self) -> dict[str, Any]:
        return {"versions": versions(), "vae": self.description, "not_describable": self.not_describable}

    def _check_settings(self, path: Path, settings: dict[str, Any]) -> None:
        for name in self.settings | settings:
            if self._differs(name, settings):
                there, here = (
                    repr(some[name]) if name in some else "the default" for some in (settings, self.settings)
                )
                raise CheckpointError(
                    f"{path} is of another run: {name} is {there} there and {here} here; choose "
                    'another folder, or the same settings, or resume="weights" to start from its weights with these'
                )


def _read_progress(progress: dict[str, Any], history: list[Row]) -> tuple[RunProgress, list[Row]]:
    """Checks progress and history as they were saved.

    Raises:
        Exception: If they are invalid.
    """
    expected = asdict(RunProgress())
    kinds = {name: type(value) for name, value in expected.items()}
    if {name: type(value) for name, value in progress.items()} != kinds:
        raise TypeError(f"its progress is {progress}; expected {kinds}")
    done = RunProgress(**progress)
    counts = [value for value in progress.values() if isinstance(value, int)]
    if min(counts) < 0 or not done.best_epoch <= done.epoch == len(history):
        raise ValueError(f"its progress is {progress}, and its history has {len(history)} epochs")
    for i, row in enumerate(history, start=1):
        if row["epoch"] != i or not all(isinstance(row[name], int | float) for name in _SHOWN):
            raise ValueError(f"its history has the row {row}")
    return done, history


_SHOWN = ("train_loss", "datapoints_per_second")


def _table(history: list[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in history for name in row)) or ["epoch"])
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()
