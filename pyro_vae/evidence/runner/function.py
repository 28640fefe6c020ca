"""The decorator of every function of evidence: for Ctrl-C, and for one thread at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pyro_vae.system.interrupts import interruptible
from pyro_vae.system.threads import one_thread_at_a_time

__all__ = ["evidence_function"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def evidence_function(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Makes Ctrl-C in the function raise ``Interrupted``, and lets it wait for other threads that use Pyro."""
    return interruptible(one_thread_at_a_time(function))
