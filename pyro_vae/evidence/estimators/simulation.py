"""Data drawn from the model, each datapoint with its latents."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import MaskedDistribution
from torch import Tensor

from pyro_vae.system.private_apis import mask_of
from pyro_vae.weights import Layout, Program, sample_sites, trace_of, trace_pair


class Simulation(NamedTuple):
    """Datapoints, and the latents they were drawn with."""

    x: Tensor  #: ``[n, *event]``.
    latents: dict[str, Tensor]  #: By site, ``[n, ...]``: an exact draw from p(z | x) for each datapoint.


@torch.no_grad()
def simulate(model: Program, guide: Program, x: Tensor, layout: Layout) -> Simulation:
    """Draws as many datapoints as x has from the model, of the same shape, with the same missing values.

    The latents are drawn before values are removed. Which values are removed does not depend on what was drawn, so the
    latents are an exact draw from the posterior given the remaining values.

    Args:
        model: A Pyro program called as ``model(x)``, with one observed site, at which x is observed.
        guide: Its guide, which tells which sites are latent.
        x: Datapoints ``[n, *event]`` that the programs accept. Only their shape and kind matter, and which values are
            missing: those that are NaN, or that a mask of the model hides (``poutine.mask`` or ``.mask``).
        layout: The layout of the programs.

    Raises:
        ValueError: If the model does not observe x at one site, treats missing values as data, hides other values of
            the drawn data than of x, or draws NaN.
    """
    with pyro.validation_enabled(False):
        observing, guided = trace_pair(model, guide, x)
        name = _observed_site(observing, x)
        missing = _missing(name, observing.nodes[name], x, layout)
        trace: Any = trace_of(poutine.uncondition(model), x, 1, layout)
    drawn = layout.by_datapoint(trace.nodes[name]["value"])[0].to(x.dtype)
    if drawn.numel() != x.numel():
        raise ValueError(f"site {name!r} draws values of shape {list(drawn.shape)}; x has {list(x.shape)}")
    drawn = torch.where(missing, x, drawn.reshape(x.shape))
    if (drawn.isnan() & ~missing).any():
        raise ValueError(f"site {name!r} of the model draws NaN")
    if _masks(observing.nodes[name]):
        with pyro.validation_enabled(False):
            again = trace_pair(model, guide, drawn)[0].nodes[name]
        if not torch.equal(_missing(name, again, drawn, layout), missing):
            raise ValueError(
                f"the mask of site {name!r} hides other values of data drawn from the model than of x; "
                "expected a mask that depends only on which values are missing"
            )
    latents = {
        name: layout.by_datapoint(trace.nodes[name]["value"])[0]
        for name, _ in sample_sites(guided)
        if name in trace.nodes
    }
    return Simulation(drawn, latents)


def _observed_site(trace: Any, x: Tensor) -> str:
    """The name of the one site at which x is observed."""
    observed = {
        name: site["value"]
        for name, site in sample_sites(trace)
        if site["is_observed"] and not site["infer"].get("_deterministic")
    }
    values = list(observed.values())
    if len(values) != 1 or not isinstance(values[0], Tensor) or values[0].numel() != x.numel():
        raise ValueError(
            f"the model has the observed sites {list(observed)}; to draw data from it, it must observe x, at one site"
        )
    return next(iter(observed))


def _missing(name: str, site: Any, x: Tensor, layout: Layout) -> Tensor:
    """Which values of x are not in the density of the model, with the shape of x."""

    def as_x(value: Tensor) -> Tensor:
        return value.movedim(layout.data_dim - site["fn"].event_dim, 0).reshape(x.shape)

    hidden = torch.zeros_like(site["value"], dtype=torch.bool)
    for mask, event_dims in _masks(site):
        hidden = hidden | ~mask.to(x.device).reshape(*mask.shape, *[1] * event_dims)
    hidden, observed = as_x(hidden), as_x(site["value"])
    if (x.isnan() & ~observed.isnan() & ~hidden).any():
        raise ValueError(
            f"x has missing values (NaN), but site {name!r} observes numbers there; to draw data with the same missing "
            "values, they must be NaN there too, as with likelihoods.Incomplete, or under a mask"
        )
    return x.isnan() | hidden


def _masks(site: Any) -> list[tuple[Tensor, int]]:
    """The masks of a site, true where values count, and the number of dimensions on the right that each lacks."""
    fn, masks = site["fn"], [(site["mask"], site["fn"].event_dim)]
    while fn is not None:
        if isinstance(fn, MaskedDistribution):
            masks.append((mask_of(fn), fn.event_dim))
        fn = getattr(fn, "base_dist", None)
    return [
        (torch.as_tensor(mask, dtype=torch.bool), dims) for mask, dims in masks if mask is not None and mask is not True
    ]
