"""A log that cannot be written is no reason to lose a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["failures_warned"]


@contextmanager
def failures_warned(path: Path) -> Iterator[None]:
    """Makes a warning that names the path of what fails, whatever the reason; Ctrl-C is none."""
    try:
        yield
    except Exception as error:
        reason = str(error) or type(error).__name__
        warnings.warn(f"cannot write {str(path)!r}: {reason}; training goes on", stacklevel=3)
