"""A log that cannot be written does not stop training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_vae.system.warning import warn

__all__ = ["failures_warned"]


@contextmanager
def failures_warned(path: Path) -> Iterator[None]:
    """Turns any exception into a warning that names the path; Ctrl-C passes."""
    try:
        yield
    except Exception as error:
        what, reason = f"cannot write {str(path)!r}", str(error) or type(error).__name__
        warn(f"{reason if reason.startswith(what) else f'{what}: {reason}'}; training continues")
