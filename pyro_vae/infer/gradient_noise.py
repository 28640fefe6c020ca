"""The noise of gradients: many draws of the gradient of a loss, on the same data and parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.infer.gradient_moments import GradientMoments
from pyro_vae.infer.losses.as_function import as_function
from pyro_vae.infer.recording.compiled import recorded
from pyro_vae.system.grad_mode import differentiable, gradients_enabled
from pyro_vae.system.interrupts import interruptible
from pyro_vae.system.randomness import generators_kept
from pyro_vae.system.threads import one_thread_at_a_time


@interruptible
@one_thread_at_a_time
@gradients_enabled()
def gradient_variance(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    losses: Mapping[str, Any],
    *,
    num_draws: int = 100,
    parameters: Mapping[str, Tensor] | None = None,
) -> dict[str, GradientMoments]:
    """Computes the gradient of each loss many times, on the same data, to see how much it varies.

    Losses that estimate the same gradient have the same mean; the one with less noise learns faster. Losses and
    gradients are sums over datapoints.

    Args:
        model: The model.
        guide: The guide.
        x: Their argument: data, ``[n, *event]``.
        losses: By name: ELBOs of Pyro or functions of model, guide and x.
        num_draws: The number of draws of each gradient, at least 3.
        parameters: The tensors to differentiate by, by name; by default the parameters of the guide.

    Returns:
        The moments of the gradient of each loss, by its name.

    Raises:
        TypeError: If x is not a tensor, or a loss is neither a function nor an ELBO that is differentiable.
        ValueError: If there are fewer than three draws, or no parameters.

    Example:
        >>> compared = {"one draw": losses.ELBO(), "ten draws": losses.ELBO(num_particles=10)}
        >>> moments = infer.gradient_variance(vae.model, vae.guide, x, compared, num_draws=20)
        >>> moments["ten draws"].total_variance < moments["one draw"].total_variance
        True
    """
    check_count("num_draws", num_draws, least=3)
    x = differentiable(check_rows(x))
    functions = {name: as_function(loss) for name, loss in losses.items()}
    parameters = _parameters_of(guide, x) if parameters is None else dict(parameters)
    if not parameters:
        raise ValueError("the guide has no parameters; expected some, or others as parameters={name: tensor}")
    results = {}
    for name, function in functions.items():
        draw = _draws(partial(function, model, guide), x, list(parameters.values()), num_draws)
        with pyro.validation_enabled(False):
            results[name] = _moments((draw(x) for _ in range(num_draws)), parameters)
    return results


def _parameters_of(program: Callable[..., Any], x: Tensor) -> dict[str, Tensor]:
    """The unconstrained parameters of a program, by the names of their sites."""
    with torch.no_grad(), generators_kept(x.device), pyro.validation_enabled(False):
        trace = poutine.trace(program, param_only=True).get_trace(x)
    values: dict[str, Any] = {name: trace.nodes[name]["value"] for name in trace.param_nodes}
    return {name: value.unconstrained() if hasattr(value, "unconstrained") else value for name, value in values.items()}


def _draws(
    loss: Callable[[Tensor], Tensor], x: Tensor, leaves: list[Tensor], times: int
) -> Callable[[Tensor], list[Tensor]]:
    """A function of x that draws a gradient of the loss; recorded if that saves time and gives the same results."""

    @torch.enable_grad()
    def gradient(x: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss(x), leaves, allow_unused=True)
        return [torch.zeros_like(leaf) if each is None else each for each, leaf in zip(found, leaves, strict=True)]

    with generators_kept(x.device):
        gradient(x)  # with Pyro's validation; this creates lazy parameters
    return recorded(gradient, x, x, _close) if times >= _OFTEN else gradient


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-5 * b.abs().max().item())


_OFTEN = 100  # recording takes as long as this many draws


def _moments(draws: Iterable[list[Tensor]], parameters: Mapping[str, Tensor]) -> GradientMoments:
    """Means and variances of draws, without keeping them (Welford 1962)."""
    mean = squares = torch.zeros(())
    distances: list[float] = []  # each is an unbiased estimate of the total variance
    for draw in draws:
        values = torch.cat([each.detach().flatten() for each in draw]).double()
        before = values - mean
        mean = mean + before / (len(distances) + 1)
        square = before * (values - mean)
        squares = squares + square
        distances.append(square.sum().item())
    count, total = len(distances), torch.tensor(distances[1:], dtype=torch.float64)  # the first is zero
    sizes = [tensor.numel() for tensor in parameters.values()]
    means, variances = (
        {
            name: part.reshape(tensor.shape)
            for (name, tensor), part in zip(parameters.items(), moments.split(sizes), strict=True)
        }
        for moments in (mean, squares / (count - 1))
    )
    return GradientMoments(means, variances, count, total.mean().item(), total.std().item() / math.sqrt(count - 1))
