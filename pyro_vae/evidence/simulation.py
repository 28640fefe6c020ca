"""Data drawn from the model itself, with the latents they were drawn from: exact draws from p(z given x)."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.weights import Layout, Program, sample_sites, trace_pair, vectorized

__all__ = ["Simulation", "simulate"]


class Simulation(NamedTuple):
    """Datapoints, and the latents that they came from."""

    x: Tensor  #: ``[n, *event]``.
    latents: dict[str, Tensor]  #: By site, ``[n, ...]``: an exact draw from p(z given x) for each datapoint.


@torch.no_grad()
def simulate(model: Program, guide: Program, x: Tensor, layout: Layout) -> Simulation:
    """Draws as many datapoints as x has, of its shape, from the model.

    Args:
        model: A Pyro program called as ``model(x)``, with one observed site, at which x is observed.
        guide: Its guide; it says which sites are latent.
        x: Datapoints ``[n, *event]`` that the programs accept; only their shape and kind matter.
        layout: That of the programs.

    Raises:
        ValueError: If the model does not observe x at one site.
    """
    with pyro.validation_enabled(False):
        observing, guided = trace_pair(model, guide, x)
        observed = [name for name, site in sample_sites(observing) if site["is_observed"]]
        values = [observing.nodes[name]["value"] for name in observed]
        if len(values) != 1 or not isinstance(values[0], Tensor) or values[0].numel() != x.numel():
            raise ValueError(
                f"the model has the observed sites {observed}; to draw data from it, it must observe x, at one site"
            )
        trace: Any = poutine.trace(vectorized(poutine.uncondition(model), 1, layout)).get_trace(x)
    drawn = layout.rows_second(trace.nodes[observed[0]]["value"])[0].to(x.dtype)
    if drawn.numel() != x.numel():
        raise ValueError(f"site {observed[0]!r} draws values of shape {list(drawn.shape)}; x has {list(x.shape)}")
    latents = {
        name: layout.rows_second(trace.nodes[name]["value"])[0]
        for name, _ in sample_sites(guided)
        if name in trace.nodes
    }
    return Simulation(drawn.reshape(x.shape), latents)
