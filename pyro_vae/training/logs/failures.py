"""A log that cannot be written does not stop training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_vae.system.warning import warn


@contextmanager
def failures_warned(place: Path | str) -> Iterator[None]:
    """Turns any exception into a warning that names the path, or the service, such as MLflow; Ctrl-C passes."""
    try:
        yield
    except Exception as error:
        what = f"cannot write {str(place)!r}" if isinstance(place, Path) else f"cannot log to {place}"
        reason = str(error) or type(error).__name__
        warn(f"{reason if reason.startswith(what) else f'{what}: {reason}'}; training continues")
