"""The cause of a loss that is NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from pyro_vae.weights import Program

Inputs = tuple[Tensor, ...]


class NotFiniteError(ArithmeticError):
    """A loss or a gradient is NaN or infinite. The parameters are those before the step.

    Attributes:
        epoch: The epoch, from 1.
        batch: The batch in it, from 1.
        step: The step, from 1.

    Example:
        >>> try:
        ...     fit(vae, x, epochs=5, lr=1e20, progress=False)
        ... except NotFiniteError as error:
        ...     error.step
        2
    """

    def __init__(self, message: str, epoch: int, batch: int, step: int) -> None:
        super().__init__(message)
        self.epoch, self.batch, self.step = epoch, batch, step


@torch.no_grad()
def find_cause(vae: nn.Module, programs: tuple[Program, Program], args: Inputs, kwargs: dict[str, Tensor]) -> str:
    """Runs the programs again and describes the first value that is NaN or infinite."""
    for name, parameter in vae.named_parameters():
        if not parameter.isfinite().all():
            return f"the parameter {name} {_how_many(parameter)}"
    try:
        with pyro.validation_enabled(False):
            takes_nan = hasattr(vae, "check")  # which has seen the data
            causes = _causes(programs, args, kwargs, takes_nan)
            return next(causes, "a gradient is not finite, all densities are")
    except (ValueError, RuntimeError, ArithmeticError) as error:
        return f"run again, the programs fail: {error}"


def _causes(
    programs: tuple[Program, Program], args: Inputs, kwargs: dict[str, Tensor], takes_nan: bool
) -> Iterator[str]:
    arguments = {**{f"argument {i}": tensor for i, tensor in enumerate(args, start=1)}, **kwargs}
    for name, tensor in arguments.items():
        if not (tensor.isfinite() | (tensor.isnan() & takes_nan)).all():
            yield f"{name} of the programs {_how_many(tensor)}"
    model, guide = programs
    guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
    yield from _at_sites(guide_trace, "the guide")
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
    yield from _at_sites(model_trace, "the model")


def _at_sites(trace: Any, program: str) -> Iterator[str]:
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or site_is_subsample(site):
            continue
        if not site["is_observed"] and not site["value"].isfinite().all():
            yield f"site {name!r} of {program} {_how_many(site['value'])}"
        log_prob = site["fn"].log_prob(site["value"])
        if not log_prob.isfinite().all():
            yield f"the log-density of site {name!r} in {program} {_how_many(log_prob)}"


def _how_many(tensor: Tensor) -> str:
    outside = ~tensor.isfinite()
    index = tuple(outside.nonzero()[0].tolist())
    where = f"[{', '.join(map(str, index))}]" if index else ""
    return f"is {tensor[index].item()} at {int(outside.sum())} of {outside.numel()} places, the first {where or 'one'}"
