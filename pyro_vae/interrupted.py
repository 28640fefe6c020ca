"""Ctrl-C, with what was done until then."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["Interrupted", "exit_at_interrupt"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what was done until then.

    Attributes:
        result: What the interrupted function would have returned for what was done.
    """

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


def exit_at_interrupt(main: Callable[[], None], message: str | None = None) -> None:
    """Calls the main function of a script; at Ctrl-C there is one line to say so, and exit status 130.

    Args:
        main: The function.
        message: What the line says; by default what was done, if that is known, or else that it was interrupted.
    """
    try:
        main()
    except KeyboardInterrupt as interrupt:
        print(message or str(interrupt) or "interrupted", file=sys.stderr)
        sys.exit(130)
