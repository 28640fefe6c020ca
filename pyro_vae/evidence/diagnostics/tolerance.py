"""How far two estimates of the same quantity may differ by chance."""

from __future__ import annotations

MAX_STANDARD_ERRORS = 4  # of a normal, the two-sided tail probability beyond this is 6e-5
