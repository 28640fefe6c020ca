"""The decorator of every function of evidence: for Ctrl-C, for one thread at a time, and without gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from pyro_vae.system.interrupts import interruptible
from pyro_vae.system.threads import one_thread_at_a_time

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def evidence_function(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Makes Ctrl-C in the function raise ``Interrupted``, and lets it wait for other threads that use Pyro.

    No gradients are computed, except where the function asks for them.
    """
    return interruptible(one_thread_at_a_time(torch.no_grad()(function)))
