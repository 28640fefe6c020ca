"""Recording: a function of tensors runs once, through whatever Python it is made of, and leaves a graph behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode

from pyro_vae.infer.recording.pyro_patches import replaced, sums_look_at_nothing
from pyro_vae.infer.recording.simplify import simplify

__all__ = ["deprecations_ignored", "record", "why"]


def record(function: Callable[..., Any], *inputs: Tensor) -> GraphModule:
    """Runs the function once and returns the operations on tensors that it consists of (``make_fx``).

    Those of a backward pass inside of it are among them, and so are random draws: called again, the graph draws new
    numbers from torch's generators. Tensors that are not inputs, such as parameters, are attributes of the graph: the
    very same objects, not copies.

    Losses that Pyro's classes turn into numbers on the way (``.item()``) stay tensors. What would have to look at
    numbers is left out: Pyro's warnings of NaN, and checks that values are in the support of a distribution.

    Args:
        function: What to record. What it decides in Python is decided now, once.
        inputs: What it is called with.

    Raises:
        Exception: Whatever the function raises; also if it decides by the values of tensors.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # imports take a second

    with (
        _NumbersStayTensors(),
        _no_look_at_values(),
        _no_other_recording(),
        sums_look_at_nothing(),
        deprecations_ignored(),
    ):
        graph = make_fx(function)(*inputs)
    simplify(graph)
    return graph


def why(error: Exception) -> str:
    """Why something cannot be recorded or compiled, in a line."""
    if "_local_scalar_dense" in str(error):
        return "what they do depends on the values of tensors"
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


class _NumbersStayTensors(TorchFunctionMode):
    """Keeps losses on the device; and no parameter's value becomes part of the program, since parameters change."""

    LOOKS = (Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.tolist, Tensor.numpy)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.item:
            return args[0].detach()
        if func in self.LOOKS and args[0].requires_grad:
            args = (args[0].detach(), *args[1:])  # which is recorded, so that to look at it is an error
        return func(*args, **(kwargs or {}))


@contextmanager
def _no_look_at_values() -> Iterator[None]:
    looks = [(pyro.util, "torch_isnan"), (Distribution, "_validate_sample")]
    with replaced((owner, name, lambda *_: False) for owner, name in looks), pyro.validation_enabled(False):
        yield


@contextmanager
def _no_other_recording() -> Iterator[None]:
    """Refuses ``torch.jit.trace``, which cannot trace what is being recorded, and after the attempt nothing else."""

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("they are traced by torch.jit at every call; Pyro's ELBOs without 'Jit' are recorded here")

    with replaced([(torch.jit, "trace", refuse)]):
        yield


@contextmanager
def deprecations_ignored() -> Iterator[None]:
    """Without the warnings of torch that it has deprecated what it calls itself."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield
