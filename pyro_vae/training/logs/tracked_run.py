"""Logs in trackers, which have runs of their own: these are resumed with the training, and end with its status."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vae.checks import check_count, check_images
from pyro_vae.processes import is_first_process
from pyro_vae.system.files import replace
from pyro_vae.system.packages import import_extra
from pyro_vae.training.logs.drawing import as_image, due_figures
from pyro_vae.training.logs.failures import failures_warned
from pyro_vae.training.logs.numbers import settings
from pyro_vae.training.run import Row, Run


class TrackedRun(ABC):
    """A callback for :func:`~pyro_vae.fit` that logs to a run of a tracker.

    Args:
        images: Test data for pictures, as for :class:`~pyro_vae.training.logs.TensorBoard`.
        every: The number of epochs between pictures.
        params: Further settings to log.
        options: Arguments of the tracker for new runs.

    Attributes:
        NAME: The name of the tracker.
        PACKAGE: Its package, which is also the extra that installs it.
    """

    NAME: str
    PACKAGE: str

    def __init__(
        self,
        images: Tensor | None = None,
        every: int = 5,
        params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._tracker()
        self._images = None if images is None else check_images(images)
        self._every = check_count("every", every)
        self._params = dict(params or {})
        self._options = options
        self._run: Any = None  # that of the tracker, while it is open
        self._is_own = False  # whether it was opened here
        self._last_step = -1  # of the rows that are written

    def _tracker(self) -> Any:
        """The package."""
        return import_extra(self.PACKAGE, f"{self.NAME} logs need a package", self.PACKAGE)

    @contextmanager
    def during(self, run: Run) -> Iterator[None]:
        """A block in which a run of the tracker is open.

        Raises:
            Exception: If the tracker cannot open it.
        """
        if not is_first_process():
            yield
            return
        self._open(run)
        try:
            with _ended(self.NAME, self._end) if self._is_own else nullcontext():
                self._write_note(run)
                with failures_warned(self.NAME):
                    self._log_settings(run, {**settings(run), **self._params})
                    self._write(run)
                yield
        finally:
            self._run = None

    def __call__(self, run: Run) -> None:
        """Logs the rows of the history that are new, and pictures if they are due."""
        if self._run is not None:
            with failures_warned(self.NAME):
                self._write(run)

    def _write(self, run: Run) -> None:
        rows = [row for row in run.history if row["step"] > self._last_step]
        for row in rows:
            figures = due_figures(run, self._images, self._every, self.NAME) if row is rows[-1] else {}
            self._log_row(row, {name: as_image(figure) for name, figure in figures.items()})
            self._last_step = row["step"]

    def _write_note(self, run: Run) -> None:
        """Writes a note for resuming the run of the tracker to the folder of the run, if it has one."""
        path = _path(run, self.PACKAGE)
        if path is not None:
            replace(path, f"{json.dumps(self._note())}\n".encode())

    @abstractmethod
    def _open(self, run: Run) -> None:
        """Sets ``_run`` and ``_is_own``."""

    @abstractmethod
    def _end(self, status: str) -> None:
        """Ends the run of the tracker: ``FINISHED``, ``FAILED`` or ``KILLED``."""

    @abstractmethod
    def _note(self) -> dict[str, Any]:
        """What :func:`read_note` returns when the run is resumed."""

    @abstractmethod
    def _log_settings(self, run: Run, params: dict[str, Any]) -> None:
        """Logs the settings, before the first row."""

    @abstractmethod
    def _log_row(self, row: Row, images: dict[str, Any]) -> None:
        """Logs a row of the history, and pictures by name, as images of PIL."""


def read_note(run: Run, name: str) -> dict[str, Any]:
    """The note on the log in the folder of a resumed run; empty for a new run."""
    path = _path(run, name)
    if path is None or run.progress.step == 0 or not path.exists():
        return {}
    return dict(json.loads(path.read_text()))


def _path(run: Run, name: str) -> Path | None:
    return None if run.out is None else run.out / f"{name}.json"


@contextmanager
def _ended(place: str, end: Callable[[str], Any]) -> Iterator[None]:
    """Calls ``end`` with how the block ended: ``FINISHED``, ``KILLED`` (by Ctrl-C or SIGTERM) or ``FAILED``."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        with failures_warned(place):
            end(status)
