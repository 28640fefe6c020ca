"""Functions of tensors without their Python code: they run once, and the recorded graph replaces them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from pyro_vae.infer.recording.inductor import inductor
from pyro_vae.infer.recording.record import record, why
from pyro_vae.system.randomness import generators_kept, reseed
from pyro_vae.system.trees import leaves_of
from pyro_vae.system.warning import warn

Function = Callable[..., Any]  # of tensors, to a tensor or several
Inputs = Tensor | tuple[Tensor, ...]
Close = Callable[[Tensor, Tensor], bool]  # whether a result is the expected one but for rounding


def _close(result: Tensor, expected: Tensor) -> bool:
    # Sums in another order differ by this much in float32.
    return result.shape == expected.shape and torch.allclose(result, expected, rtol=1e-5, atol=1e-3, equal_nan=True)


def compiled(function: Function, example: Inputs, other: Inputs) -> Function:
    """Compiles a function that may draw random numbers, for inputs of one shape.

    The function is run once and recorded, and Inductor compiles the recording; without a C++ compiler, it is replayed
    as it was recorded. With the same seed the result draws the same numbers as the function does. Both are compared on
    another input. If the results differ, because the function depends on the values of its input, or on random numbers
    that are not torch's, there is a warning, and the function itself is returned.

    Args:
        function: The function, of one or more tensors. Only gradients that it computes itself are computed.
        example: One or more inputs to record it with.
        other: One or more other inputs of the same shape, to compare results on.
    """
    found, reason = _fast(function, example, other, (inductor, _as_recorded), _close)
    if reason is not None:
        warn(f"the programs cannot be compiled, and run as they are ({why(reason)})")
    return found


def recorded(function: Function, example: Inputs, other: Inputs, close: Close = _close) -> Function:
    """As :func:`compiled`, but without Inductor, which takes ten seconds, and without a warning.

    This saves the time of the Python code at each call, which is most of the time for small tensors.
    """
    return _fast(function, example, other, (_as_recorded,), close)[0]


def _fast(
    function: Function,
    example: Inputs,
    other: Inputs,
    builders: Sequence[Callable[..., Function]],
    close: Close,
) -> tuple[Function, Exception | None]:
    """The function as built by the first builder that succeeds; else the function itself and the reason."""
    inputs, others = ((given,) if isinstance(given, Tensor) else given for given in (example, other))
    with torch.no_grad(), generators_kept(inputs[0].device):
        try:
            graph = record(function, *inputs)
        except Exception as error:
            return function, error
        reason: Exception | None = None
        for build in builders:
            try:
                candidate = build(graph, *inputs)
                _compare(candidate, function, others, close)
            except Exception as error:
                reason = error
            else:
                return candidate, None
        return function, reason


def _as_recorded(graph: GraphModule, *inputs: Tensor) -> Function:  # noqa: ARG001
    return graph


def _compare(candidate: Function, function: Function, inputs: tuple[Tensor, ...], close: Close) -> None:
    device = inputs[0].device
    reseed(0, device)
    results = leaves_of(candidate(*inputs))
    reseed(0, device)
    expected = leaves_of(function(*inputs))
    if len(results) != len(expected) or not all(map(close, results, expected)):
        raise ValueError("recorded once, it gives other results than when it is run again")
