"""Shared by logs with runs of their own: a run is resumed with the training, and ends with its status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyro_vae.system.files import replace
from pyro_vae.training.logs.failures import failures_warned
from pyro_vae.training.run import Run

__all__ = ["ended", "read_note", "write_note"]


def read_note(run: Run, name: str) -> dict[str, Any]:
    """The note on the log in the folder of a resumed run; empty for a new run."""
    path = _path(run, name)
    if path is None or run.progress.step == 0 or not path.exists():
        return {}
    return dict(json.loads(path.read_text()))


def write_note(run: Run, name: str, note: dict[str, Any]) -> None:
    """Writes a note for resuming the log to the folder of a run, if it has one."""
    path = _path(run, name)
    if path is not None:
        replace(path, f"{json.dumps(note)}\n".encode())


def _path(run: Run, name: str) -> Path | None:
    return None if run.out is None else run.out / f"{name}.json"


@contextmanager
def ended(place: str, end: Callable[[str], Any]) -> Iterator[None]:
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
