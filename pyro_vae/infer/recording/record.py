"""Recording: a function of tensors runs once, through any Python code, and leaves a graph of its operations."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode

from pyro_vae.infer.recording.operations import NeedsValueError, operations
from pyro_vae.infer.recording.simplify import simplify
from pyro_vae.system.private_apis import (
    check_recording,
    sums_without_selection,
    value_checks,
)


def record(function: Callable[..., Any], *inputs: Tensor) -> GraphModule:
    """Runs the function once and returns the operations on tensors that it consists of.

    The operations of a backward pass inside the function are included. So are random draws: each call of the graph
    draws new numbers from torch's generators. Tensors that are not inputs, such as parameters, are attributes of the
    graph: the same objects, not copies.

    Losses that Pyro's classes turn into numbers on the way (``.item()``) stay tensors. What would have to look at
    numbers is left out: Pyro's warnings of NaN, and checks that values are in the support of a distribution.

    Args:
        function: What to record. Its decisions in Python are made now, once.
        inputs: What it is called with.

    Raises:
        NotImplementedError: If this version of torch or Pyro lacks something that recording needs.
        Exception: Whatever the function raises; also if it decides by the values of tensors.
    """
    check_recording()
    no_checks = [(owner, name, lambda *_: False) for owner, name in value_checks()]
    # torch.jit.trace cannot trace what is being recorded, and after the attempt it cannot trace anything.
    patches = [*no_checks, *sums_without_selection(), (torch.jit, "trace", _refuse)]
    with _NumbersStayTensors(), _replaced(patches), pyro.validation_enabled(False), deprecations_ignored():
        graph = operations(function, *inputs)
    simplify(graph)
    return graph


def why(error: Exception) -> str:
    """Why something cannot be recorded or compiled, in a line."""
    if isinstance(error, NeedsValueError):
        return "what they do depends on the values of tensors"
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


class _NumbersStayTensors(TorchFunctionMode):
    """Keeps losses on the device. The value of a parameter cannot become part of the graph, since it will change."""

    LOOKS = (Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.tolist, Tensor.numpy)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.item:
            return args[0].detach()
        if func in self.LOOKS and args[0].requires_grad:
            args = (args[0].detach(), *args[1:])  # this is recorded, so that looking at it is an error
        return func(*args, **(kwargs or {}))


def _refuse(*_: Any, **__: Any) -> None:
    raise RuntimeError("they are traced by torch.jit at every call; Pyro's ELBOs without 'Jit' are recorded here")


@contextmanager
def _replaced(attributes: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Sets attributes (owner, name, value), and sets them back on leaving."""
    with ExitStack() as stack:
        for owner, name, value in attributes:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


@contextmanager
def deprecations_ignored() -> Iterator[None]:
    """Hides torch's warnings about deprecated functions that torch itself calls."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield
