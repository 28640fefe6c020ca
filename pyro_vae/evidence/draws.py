"""Draws from the posterior p(z given x), in the form that ArviZ takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.lazy_arviz import arviz_data
from pyro_vae.evidence.pareto import pareto_smooth, tail_length
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.runner import Programs, Progress, bar
from pyro_vae.processes import Processes
from pyro_vae.weights import Layout, Program, sample_sites, sum_out, terms, traces_at

__all__ = ["PosteriorDraws", "posterior_draws", "to_arviz"]

CANDIDATES = 10  # for each draw that is kept
GROUPS = ("posterior", "log_likelihood", "posterior_predictive", "observed_data", "constant_data")
CHAINS = 4  # the draws are independent; ArviZ compares the parts they are divided into

_BAR = partial(bar, description="posterior draws")


class PosteriorDraws(NamedTuple):
    """Draws from p(z given x) for n datapoints."""

    latents: dict[str, Tensor]  #: By site, ``[draws, n, ...]``.
    pareto_k: Tensor  #: Of the weights they were chosen by, ``[n]``.


@torch.no_grad()
def posterior_draws(
    model: Program, guide: Program, x: Tensor, num_draws: int, layout: Layout, proposal: Proposal = terms
) -> PosteriorDraws:
    """Sampling-importance-resampling (Rubin 1988): ten times as many draws, some kept by Pareto-smoothed weights."""
    candidates = [proposal(model, guide, x, num_draws, layout) for _ in range(CANDIDATES)]
    log_weights = torch.cat([part.log_weights for part in candidates]).double().cpu()
    order = log_weights.argsort(0, descending=True)[: tail_length(len(log_weights)) + 1]
    k, smoothed = pareto_smooth(log_weights.gather(0, order))
    chosen = log_weights.scatter(0, order, smoothed).softmax(0).T.multinomial(num_draws, replacement=True).T
    latents = {}
    for name in candidates[0].latents:
        values = torch.cat([layout.rows_second(part.latents[name]) for part in candidates])
        index = chosen.to(x.device).reshape(*chosen.shape, *[1] * (values.ndim - 2))
        latents[name] = values.gather(0, index.expand(-1, -1, *values.shape[2:]))
    return PosteriorDraws(latents, k)


@torch.no_grad()
def to_arviz(
    model: Program,
    guide: Program,
    x: Tensor,
    num_draws: int = 500,
    *,
    proposal: Proposal = terms,
    chunk_size: int | None = None,
    progress: Progress = _BAR,
    resume: str | Path | None = None,
    processes: Processes | None = None,
) -> Any:
    """Draws from the posterior, with all that ArviZ wants to know of them.

    So that ``az.summary``, ``az.plot_pair``, ``az.loo`` and the like work on any model and guide. All draws are held in
    memory, and as many posterior predictive datapoints for every row of x: choose rows.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``.
        num_draws: Draws for each datapoint, at least 4: independent, in 4 chains (a remainder is left out).
        proposal: Where the draws come from, before they are resampled by their weights.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Wraps the sequence of blocks of datapoints, as ``rich.progress.track`` does; ``iter`` for silence.
        resume: A file to keep what is done in. The same call goes on from it, to the same numbers as if it had not
            been stopped; at most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Returns:
        An ``InferenceData`` (ArviZ before 1.0) or a ``DataTree`` with the groups ``posterior`` (the latent sites,
        ``[chain, draw, datapoint, ...]``), ``log_likelihood`` (of each observed site, ``[chain, draw, datapoint]``),
        ``posterior_predictive``, ``observed_data`` and ``constant_data`` (``pareto_k`` of the weights, by which to know
        whether the draws are from the posterior).

    Raises:
        TypeError: If x is not a tensor, or has a dtype that the programs do not take.
        ValueError: As :func:`~pyro_vae.evidence.importance`.
        Interrupted: At Ctrl-C, with the draws for the datapoints that were done.
    """
    num_draws = check_count("num_draws", num_draws, least=CHAINS) // CHAINS * CHAINS
    programs = Programs(model, guide, x, chunk_size)
    layout = programs.layout

    def draw(block: Tensor, first: int) -> dict[str, Tensor]:  # noqa: ARG001
        drawn = posterior_draws(model, guide, block, num_draws, layout, proposal)
        latents = {name: layout.rows_back(value) for name, value in drawn.latents.items()}
        model_trace, _ = traces_at(model, guide, block, latents, num_draws, layout)
        observed = {name: site for name, site in sample_sites(model_trace) if site["is_observed"]}
        log_likelihood = {
            name: sum_out(site["fn"].log_prob(site["value"]), layout, name) for name, site in observed.items()
        }
        drawable = {name: site for name, site in observed.items() if hasattr(site["fn"], "sample")}
        values = {name: site["value"].expand(site["fn"].shape()) for name, site in drawable.items()}
        groups = {
            "posterior": drawn.latents,
            "log_likelihood": log_likelihood,
            "posterior_predictive": {name: layout.rows_second(site["fn"].sample()) for name, site in drawable.items()},
            "observed_data": {name: layout.rows_second(value)[:1] for name, value in values.items()},
            "constant_data": {"pareto_k": drawn.pareto_k[None]},
        }
        # Rows first, as columns are.
        return {
            f"{group} {name}": value.movedim(1, 0) for group, values in groups.items() for name, value in values.items()
        }

    return programs.run(
        draw,
        _to_arviz,
        rows=max(1, programs.chunk_size // num_draws),
        settings={"function": "to_arviz", "num_draws": num_draws},
        proposal=proposal,
        progress=progress,
        resume=resume,
        processes=processes,
    )


def _to_arviz(columns: dict[str, Tensor]) -> Any:
    """ArviZ's form of columns ``[n, draws, ...]``, of which the names begin with a group."""
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for column, value in columns.items():
        group, name = column.split(" ", 1)
        groups[group][name] = value.movedim(1, 0).numpy()
    dims = {
        name: ["datapoint", *(f"{name}_dim_{i}" for i in range(value.ndim - 2))]
        for arrays in groups.values()
        for name, value in arrays.items()
    }
    by_chain = {
        group: {
            name: value[0] if group.endswith("data") else value.reshape(CHAINS, -1, *value.shape[1:])
            for name, value in arrays.items()
        }
        for group, arrays in groups.items()
    }
    return arviz_data(by_chain, dims)
