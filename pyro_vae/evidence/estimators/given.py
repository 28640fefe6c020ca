"""`estimate` with global latents, which all datapoints share: one plain estimate for each draw of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.evidence.estimators.climbing import Climb, Clock
from pyro_vae.evidence.results.certificate import Certificate
from pyro_vae.evidence.results.error_bars import error_bars
from pyro_vae.evidence.results.evidence import Evidence
from pyro_vae.evidence.results.running_weights import RunningWeights
from pyro_vae.system.randomness import generators_kept
from pyro_vae.weights import Program, log_mean_exp, sample_sites


class ClimbForEachDraw:
    """As :class:`~pyro_vae.evidence.estimators.climbing.Climb`: a plain estimate for each draw of the global latents.

    Args:
        climbs: The plain estimates, of the programs given each of the draws.
    """

    def __init__(self, climbs: Sequence[Climb]) -> None:
        self.climbs, self.programs = climbs, climbs[0].programs

    def columns(self, block: Tensor, first: int, clock: Clock) -> dict[str, Tensor]:
        """The estimates of a block, each ``[rows, draws, ...]``."""
        each = [climb.columns(block, first, clock, draw, len(self.climbs)) for draw, climb in enumerate(self.climbs)]
        return {name: torch.stack([columns[name] for columns in each], dim=1) for name in each[0]}

    def result(self, columns: dict[str, Tensor]) -> Evidence:
        """The log of the mean over the draws, and the estimate for each draw."""
        results = []
        for draw, climb in enumerate(self.climbs):
            results.append(climb.result({name: column[:, draw].contiguous() for name, column in columns.items()}))
        return averaged(results)

    def certificate(self, count: int) -> Certificate:
        """A certificate of this number of datapoints, divided among the draws."""
        draws = len(self.climbs)
        counts = [count // draws + (draw < count % draws) for draw in range(draws)]
        pairs = zip(self.climbs, counts, strict=True)
        certificates = [climb.certificate(number) for climb, number in pairs if number]
        names = ("lower", "upper", "error")
        return Certificate(*(torch.cat([getattr(each, name) for each in certificates]) for name in names))


def each_draw(model: Program, x: Tensor, given: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """A list of the draws of global latents, checked by running the model once.

    Args:
        model: The model.
        x: Data for the model.
        given: The draws by site, ``[draws, ...]``.

    Raises:
        TypeError: If ``given`` is not a mapping from names to tensors.
        ValueError: If there are no draws, sites have different numbers of draws, a name is no latent site, or a draw
            does not have the shape of its site.
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
        raise ValueError(f"given has {sorted(numbers)} draws; expected the same number for all sites, at least 1")
    return [{name: values[i].to(x.device) for name, values in given.items()} for i in range(*numbers)]


def conditioned(program: Program, values: dict[str, Tensor]) -> Program:
    """The program with these values at these sites, which are then hidden: p(x, z | w), or q(z | x, w).

    The auxiliary sites that an autoguide draws for a global latent are hidden too.
    """
    hidden = {*values, *(f"{name}_unconstrained" for name in values)}

    def is_hidden(site: Any) -> bool:
        if site["type"] != "sample":
            return False
        is_global = not any(frame.vectorized for frame in site["cond_indep_stack"])
        return site["name"] in hidden or (is_global and bool(site["infer"].get("is_auxiliary")))

    return poutine.block(poutine.condition(program, data=values), hide_fn=is_hidden)


def averaged(results: Sequence[Evidence]) -> Evidence:
    """The log of the mean of p(x | w) over draws of w, for each datapoint, from the estimates for each draw.

    All datapoints share the draws, so their part of the error does not average out: it counts as bias.
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
