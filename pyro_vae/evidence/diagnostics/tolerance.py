"""How far two estimates of the same quantity may differ by chance."""

from __future__ import annotations

__all__ = ["MAX_STANDARD_ERRORS"]

MAX_STANDARD_ERRORS = 4  # of a normal, the two-sided tail probability beyond this is 6e-5
