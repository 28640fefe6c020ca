"""Functions of tensors without the Python around them: Pyro's effect handlers run once, and leave a graph behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.infer.inductor import inductor
from pyro_vae.infer.recording import record, why
from pyro_vae.randomness import generators_kept, reseed

__all__ = ["compiled"]

Function = Callable[[Tensor], Tensor]


def compiled(function: Function, example: Tensor, other: Tensor) -> Function:
    """Compiles a function that draws random numbers, for inputs of one shape.

    The function is run once and recorded, and Inductor makes machine code of the recording; without a C++ compiler, it
    is replayed as it was recorded. With the same seed the result draws the same numbers as the function does. It is
    tried on another input: if that shows that the function cannot be recorded (since what it does depends on the values
    of its input, or on random numbers that are not torch's), a warning says so, and the function itself is returned.

    Args:
        function: The function. No gradient is computed.
        example: An input to record it with.
        other: Another input of the same shape, to compare results on.
    """
    with torch.no_grad(), generators_kept(example.device):
        try:
            graph = record(function, example)
        except Exception as error:
            return _given_up(function, error)
        reason: Exception | None = None
        for build in (lambda: inductor(graph, example), lambda: graph):
            try:
                candidate = build()
                reason = _difference(candidate, function, other)
            except Exception as error:
                reason = error
            else:
                if reason is None:
                    return candidate
        return _given_up(function, reason)  # type: ignore[arg-type]  # or it would have returned


def _difference(candidate: Function, function: Function, x: Tensor) -> Exception | None:
    reseed(0, x.device)
    result = candidate(x)
    reseed(0, x.device)
    expected = function(x)
    # The tolerance is what float32 loses in sums of another order.
    if result.shape == expected.shape and torch.allclose(result, expected, rtol=1e-5, atol=1e-3, equal_nan=True):
        return None
    return ValueError("recorded once, it gives other results than when it is run again")


def _given_up(function: Function, reason: Exception) -> Function:
    warnings.warn(f"the programs cannot be compiled, and run as they are ({why(reason)})", stacklevel=2)
    return function
