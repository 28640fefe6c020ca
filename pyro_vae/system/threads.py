"""One thread at a time: Pyro's handler stack, validation setting and parameters are global to the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_turn = threading.RLock()


def in_turn() -> AbstractContextManager[bool]:
    """A reentrant lock as a context manager, for code that uses Pyro's global state."""
    return _turn


def one_thread_at_a_time(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, which runs while no other thread is in it or in another such function."""

    @wraps(function)
    def waiting(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with in_turn():
            return function(*args, **kwargs)

    return waiting


def _begin_anew() -> None:
    """Makes a new lock in a forked process, which has no other threads to wait for."""
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
