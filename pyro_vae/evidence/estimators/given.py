"""Evidence given draws of global latents: those that all datapoints share, as the weights of a Bayesian decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.evidence.results.error_bars import error_bars
from pyro_vae.evidence.results.evidence import Evidence
from pyro_vae.evidence.results.running_weights import RunningWeights
from pyro_vae.system.randomness import generators_kept
from pyro_vae.weights import Program, log_mean_exp, sample_sites

__all__ = ["averaged", "conditioned", "each_draw"]


@torch.no_grad()
def each_draw(model: Program, x: Tensor, given: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Draws of global latents, one after the other, checked by running the model once.

    Args:
        model: The model.
        x: Data that it takes.
        given: By site, ``[draws, ...]``.

    Raises:
        TypeError: If it is not a mapping from names to tensors.
        ValueError: If there are no draws, sites have different numbers of them, a name is not that of a latent site, or
            a draw has not the shape of its site.
    """
    if not isinstance(given, Mapping) or not all(isinstance(values, Tensor) for values in given.values()):
        raise TypeError(f"given is of type {type(given).__name__}; expected a dict of tensors [draws, ...] by site")
    with generators_kept(x.device):
        trace = poutine.util.prune_subsample_sites(poutine.trace(model).get_trace(x))
    latent = {name: site["value"].shape for name, site in sample_sites(trace) if not site["is_observed"]}
    numbers = {len(values) if values.ndim else 0 for values in given.values()}
    for name, values in given.items():
        if name not in latent:
            raise ValueError(f"given has {name!r}, which is not a latent site of the model; it has {list(latent)}")
        if values.shape[1:] != latent[name] or not values.ndim:
            expected = ", ".join(map(str, ("draws", *latent[name])))
            raise ValueError(f"given[{name!r}] has shape {list(values.shape)}; expected [{expected}]")
    if len(numbers) != 1 or 0 in numbers:
        raise ValueError(f"given has {sorted(numbers)} draws; expected one number of them for all sites, at least 1")
    return [{name: values[i].to(x.device) for name, values in given.items()} for i in range(*numbers)]


def conditioned(program: Program, values: dict[str, Tensor]) -> Program:
    """The program with these values at these sites, which are then no sites of it: p(x, z | w), or q(z | x, w).

    What an autoguide draws on the way to a global latent is none either.
    """
    hidden = {*values, *(f"{name}_unconstrained" for name in values)}

    def is_hidden(site: Any) -> bool:
        if site["type"] != "sample":
            return False
        is_global = not any(frame.vectorized for frame in site["cond_indep_stack"])
        return site["name"] in hidden or (is_global and bool(site["infer"].get("is_auxiliary")))

    return poutine.block(poutine.condition(program, data=values), hide_fn=is_hidden)


def averaged(results: Sequence[Evidence]) -> Evidence:
    """The log of the mean over draws of p(x | w), of each datapoint, from log p(x | w) given each of the draws.

    The draws are the same for all datapoints, so that their part of the error does not average out: it counts as bias.
    """
    log_prob = torch.stack([each.log_prob for each in results])
    share = log_prob.softmax(0)

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(each, name) for each in results])

    draws_error = torch.zeros_like(log_prob[0])
    if len(results) > 1:
        of_draws = RunningWeights(log_prob.shape[1], len(results), log_prob.device)
        of_draws.update(log_prob)
        draws_error = error_bars(of_draws.moments()).error
    noise = (share * (stacked("error") - stacked("bias"))).square().sum(0).sqrt()
    bias = (share * stacked("bias")).sum(0) + draws_error
    error = (bias + noise).nan_to_num(torch.inf, torch.inf)
    return Evidence(
        log_prob=log_mean_exp(log_prob),
        error=error,
        bias=bias.masked_fill(error.isinf(), torch.inf),
        std_error=(share * stacked("std_error")).square().sum(0).sqrt(),
        ess=1 / (share.square() / stacked("ess")).sum(0),
        pareto_k=stacked("pareto_k").amax(0),
        log_prob_psis=log_mean_exp(stacked("log_prob_psis")),
        elbo=stacked("elbo").mean(0),
        num_samples=stacked("num_samples").sum(0),
        samples="samples or chains",
        stopped_by_budget=max(each.stopped_by_budget for each in results),
        given=tuple(results),
        draws_error=draws_error,
    )
