"""Ctrl-C, with what was done until then."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["Interrupted", "interruptible"]

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
