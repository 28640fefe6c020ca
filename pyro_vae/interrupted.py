"""Ctrl-C, with what was done until then."""

from __future__ import annotations

from typing import Any

__all__ = ["Interrupted"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what was done until then.

    Attributes:
        result: What the interrupted function would have returned for what was done.
    """

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result
