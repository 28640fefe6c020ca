"""Ctrl-C with a partial result."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with the partial result of the interrupted function.

    Attributes:
        result: The result for the part that was completed; None if there is none.

    Example:
        >>> try:
        ...     raise Interrupted("stopped after 3 of 10 datapoints", [1.0, 2.0, 3.0])
        ... except Interrupted as interrupt:
        ...     len(interrupt.result)
        3
    """

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


def interruptible(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, with every Ctrl-C converted to an :class:`Interrupted` (without a result, if it has none yet).

    Args:
        function: A function that raises ``Interrupted`` itself as soon as it has a partial result.
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
