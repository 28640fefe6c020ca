"""Warnings at the line of the user's code that caused them; and those of other libraries suppressed."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOT_THE_USERS = {"pyro_vae", "pyro", "torch", "contextlib", "functools"}


def warn(message: str) -> None:
    """Warns at the innermost line of the call stack that is outside of these packages."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USERS:
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)


@contextmanager
def quiet(logger_name: str) -> Iterator[None]:
    """Suppresses warnings, and what a logger says below the level of errors."""
    logger = logging.getLogger(logger_name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)
