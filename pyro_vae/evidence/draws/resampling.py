"""Draws from the posterior p(z | x): draws from something else, some of them kept by their weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.results.evidence import MAX_PARETO_K
from pyro_vae.evidence.results.pareto import pareto_smooth, tail_length
from pyro_vae.weights import Layout, Program, terms

__all__ = ["CANDIDATES", "PosteriorDraws", "posterior_draws", "resample", "take"]

CANDIDATES = 10  # for each draw that is kept


class PosteriorDraws(NamedTuple):
    """Draws from p(z | x) for n datapoints."""

    latents: dict[str, Tensor]  #: By site, ``[draws, n, ...]``.
    pareto_k: Tensor  #: Of the weights they were chosen by, ``[n]``.
    doubtful: Tensor  #: Where they need not be from the posterior, ``[n]``.


@torch.no_grad()
def posterior_draws(
    model: Program, guide: Program, x: Tensor, num_draws: int, layout: Layout, proposal: Proposal = terms
) -> PosteriorDraws:
    """Sampling-importance-resampling (Rubin 1988): ten times as many draws, some kept by Pareto-smoothed weights."""
    candidates = [proposal(model, guide, x, num_draws, layout) for _ in range(CANDIDATES)]
    chosen, k = resample(torch.cat([part.log_weights for part in candidates]), num_draws)
    latents = {
        name: take(torch.cat([layout.by_datapoint(part.latents[name]) for part in candidates]), chosen)
        for name in candidates[0].latents
    }
    return PosteriorDraws(latents, k, k > MAX_PARETO_K)


def resample(log_weights: Tensor, num_draws: int) -> tuple[Tensor, Tensor]:
    """Chooses among draws by their weights, of which the largest are Pareto-smoothed.

    Args:
        log_weights: ``[candidates, n]``.
        num_draws: How many to choose for each datapoint, with replacement.

    Returns:
        Their indices, ``[num_draws, n]``, and the k-hat of the weights, ``[n]``; both on the CPU.
    """
    log_weights = log_weights.double().cpu()
    order = log_weights.argsort(0, descending=True)[: tail_length(len(log_weights)) + 1]
    k, smoothed = pareto_smooth(log_weights.gather(0, order))
    chosen = log_weights.scatter(0, order, smoothed).softmax(0).T.multinomial(num_draws, replacement=True).T
    return chosen, k


def take(values: Tensor, chosen: Tensor) -> Tensor:
    """Values ``[candidates, n, ...]`` of the chosen draws, ``[num_draws, n, ...]``."""
    index = chosen.to(values.device).reshape(*chosen.shape, *[1] * (values.ndim - 2))
    return values.gather(0, index.expand(-1, -1, *values.shape[2:]))
