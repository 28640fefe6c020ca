"""Draws from the posterior p(z given x), in the form that ArviZ takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.evidence.blocks import choose_chunk_size, split_rows
from pyro_vae.evidence.lazy_arviz import arviz_data
from pyro_vae.evidence.pareto import pareto_smooth, tail_length
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.weights import Layout, Program, find_layout, sample_sites, sum_out, terms, traces_at

__all__ = ["PosteriorDraws", "posterior_draws", "to_arviz"]

CANDIDATES = 10  # for each draw that is kept
CHAINS = 4  # the draws are independent; ArviZ compares the parts they are divided into


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
def to_arviz(model: Program, guide: Program, x: Tensor, num_draws: int = 500, *, proposal: Proposal = terms) -> Any:
    """Draws from the posterior, with all that ArviZ wants to know of them.

    So that ``az.summary``, ``az.plot_pair``, ``az.loo`` and the like work on any model and guide. All draws are held in
    memory, and as many posterior predictive datapoints for every row of x: choose rows.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``.
        num_draws: Draws for each datapoint, at least 4: independent, in 4 chains (a remainder is left out).
        proposal: Where the draws come from, before they are resampled by their weights.

    Returns:
        An ``InferenceData`` (ArviZ before 1.0) or a ``DataTree`` with the groups ``posterior`` (the latent sites,
        ``[chain, draw, datapoint, ...]``), ``log_likelihood`` (of each observed site, ``[chain, draw, datapoint]``),
        ``posterior_predictive``, ``observed_data`` and ``constant_data`` (``pareto_k`` of the weights, by which to know
        whether the draws are from the posterior).

    Raises:
        TypeError: If x is not a tensor.
        ValueError: As :func:`~pyro_vae.evidence.importance`.
    """
    num_draws = check_count("num_draws", num_draws, least=CHAINS) // CHAINS * CHAINS
    layout = find_layout(model, guide, check_rows(x))
    rows = max(1, choose_chunk_size(model, guide, x, layout, None) // num_draws)
    parts: list[dict[str, dict[str, Tensor]]] = []
    with pyro.validation_enabled(False):
        for block in split_rows(model, guide, x, layout, rows):
            drawn = posterior_draws(model, guide, block, num_draws, layout, proposal)
            latents = {name: layout.rows_back(value) for name, value in drawn.latents.items()}
            model_trace, _ = traces_at(model, guide, block, latents, num_draws, layout)
            observed = {name: site for name, site in sample_sites(model_trace) if site["is_observed"]}
            log_likelihood = {
                name: sum_out(site["fn"].log_prob(site["value"]), layout, name) for name, site in observed.items()
            }
            drawable = {name: site for name, site in observed.items() if hasattr(site["fn"], "sample")}
            values = {name: site["value"].expand(site["fn"].shape()) for name, site in drawable.items()}
            parts.append(
                {
                    "posterior": drawn.latents,
                    "log_likelihood": log_likelihood,
                    "posterior_predictive": {
                        name: layout.rows_second(site["fn"].sample()) for name, site in drawable.items()
                    },
                    "observed_data": {name: layout.rows_second(value)[:1] for name, value in values.items()},
                    "constant_data": {"pareto_k": drawn.pareto_k[None]},
                }
            )
    groups = {
        group: {name: torch.cat([part[group][name] for part in parts], dim=1).cpu().numpy() for name in parts[0][group]}
        for group in parts[0]
    }
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
