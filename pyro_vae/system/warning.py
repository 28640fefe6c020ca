"""Warnings at the line of the user's code that caused them."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

_NOT_THE_USERS = {"pyro_vae", "pyro", "torch", "contextlib", "functools"}


def warn(message: str) -> None:
    """Warns at the innermost line of the call stack that is outside of these packages."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USERS:
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)
