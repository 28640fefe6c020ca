"""Ctrl-C, with what was done until then."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["Interrupted", "exit_at_interrupt", "interruptible"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what was done until then.

    Attributes:
        result: What the interrupted function would have returned for what was done; None if nothing was.
    """

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


def interruptible(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, of which Ctrl-C makes an :class:`Interrupted` wherever it comes; without a result, if it has none.

    Args:
        function: A function that raises ``Interrupted`` itself once it has something to show.
    """

    @wraps(function)
    def interrupted(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except Interrupted:
            raise
        except KeyboardInterrupt as interrupt:
            raise Interrupted(f"{function.__name__} was interrupted before it had a result", None) from interrupt

    return interrupted


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
