"""Functions of tensors without the Python around them: Pyro's effect handlers run once, and leave a graph behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pyro_vae.randomness import generators_kept, reseed

__all__ = ["compiled"]

Function = Callable[[Tensor], Tensor]


def compiled(function: Function, example: Tensor, other: Tensor) -> Function:
    """Compiles a function that draws random numbers, for inputs of one shape.

    The function is run once, and the operations on tensors that it consists of are recorded (``make_fx``). Inductor
    makes machine code of them, which takes seconds and a C++ compiler; without one, the operations are run as they
    were recorded. With the same seed the result draws the same numbers as the function does. It is tried on another
    input: if that shows that the function cannot be recorded (since what it does depends on the values of its input, or
    on random numbers that are not torch's), a warning says so, and the function itself is returned.

    Args:
        function: The function. No gradient is computed.
        example: An input to record it with.
        other: Another input of the same shape, to compare results on.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # imports take a second

    def inductor() -> Function:
        # Random numbers are then drawn by torch's kernels, from torch's generators.
        return torch.compile(graph, dynamic=False, options={"fallback_random": True})

    with torch.no_grad(), generators_kept(example.device), _without_torchs_own_warnings():
        try:
            graph = make_fx(function)(example)
        except Exception as error:
            return _given_up(function, error)
        reason: Exception | None = None
        for build in (inductor, lambda: graph):
            try:
                candidate = build()
                reason = _difference(candidate, function, other)
            except Exception as error:
                reason = error
            else:
                if reason is None:
                    return candidate
        return _given_up(function, reason)


@contextmanager
def _without_torchs_own_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # torch calls what it has deprecated itself
            warnings.simplefilter("ignore", category)
        yield


def _difference(candidate: Function, function: Function, x: Tensor) -> Exception | None:
    reseed(0, x.device)
    result = candidate(x)
    reseed(0, x.device)
    expected = function(x)
    # The tolerance is what float32 loses in sums of another order.
    if result.shape == expected.shape and torch.allclose(result, expected, rtol=1e-5, atol=1e-3, equal_nan=True):
        return None
    return ValueError("recorded once, it gives other results than when it is run again")


def _given_up(function: Function, reason: Exception | None) -> Function:
    first_line = next(iter(str(reason).splitlines()), "")
    warnings.warn(
        f"the programs cannot be compiled, and run as they are ({type(reason).__name__}: {first_line})", stacklevel=2
    )
    return function
