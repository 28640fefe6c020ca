"""Draws from the posterior p(z | x): draws from a proposal, some of which are kept by their weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.results.evidence import MAX_PARETO_K
from pyro_vae.evidence.results.pareto import pareto_smooth, tail_length
from pyro_vae.weights import Layout, Program, terms

CANDIDATES = 10  # for each draw that is kept


class PosteriorDraws(NamedTuple):
    """Draws from p(z | x) for n datapoints."""

    latents: dict[str, Tensor]  #: By site, ``[draws, n, ...]``.
    pareto_k: Tensor  #: The k-hat of the weights by which they were chosen, ``[n]``.
    ess: Tensor  #: The number of independent posterior draws that they are worth, ``[n]``.
    doubtful: Tensor  #: Where they may not be from the posterior, ``[n]``.


@torch.no_grad()
def posterior_draws(
    model: Program, guide: Program, x: Tensor, num_draws: int, layout: Layout, proposal: Proposal = terms
) -> PosteriorDraws:
    """Sampling-importance-resampling (Rubin 1988): from ten times as many draws, some by Pareto-smoothed weights."""
    candidates = [proposal(model, guide, x, num_draws, layout) for _ in range(CANDIDATES)]
    chosen, k, ess = resample(torch.cat([part.log_weights for part in candidates]), num_draws)
    latents = {
        name: take(torch.cat([layout.by_datapoint(part.latents[name]) for part in candidates]), chosen)
        for name in candidates[0].latents
    }
    return PosteriorDraws(latents, k, ess, k > MAX_PARETO_K)


def resample(log_weights: Tensor, num_draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """Chooses among draws by their weights, with the largest weights Pareto-smoothed.

    Args:
        log_weights: ``[candidates, n]``.
        num_draws: The number of draws to choose for each datapoint, with replacement.

    Returns:
        Their indices, ``[num_draws, n]``; the k-hat of the weights, ``[n]``; and the effective sample size of the
        chosen draws, ``[n]``. All are on the CPU. The variance of a mean over chosen draws is that over candidates
        (their ESS) plus that of the choice (``num_draws``).
    """
    log_weights = log_weights.double().cpu()
    order = log_weights.argsort(0, descending=True)[: tail_length(len(log_weights)) + 1]
    k, smoothed = pareto_smooth(log_weights.gather(0, order))
    share = log_weights.scatter(0, order, smoothed).softmax(0)
    chosen = share.T.multinomial(num_draws, replacement=True).T
    return chosen, k, 1 / (share.square().sum(0) + 1 / num_draws)


def take(values: Tensor, chosen: Tensor) -> Tensor:
    """The values of chosen draws, ``[num_draws, n, ...]``, from those of all candidates, ``[candidates, n, ...]``."""
    index = chosen.to(values.device).reshape(*chosen.shape, *[1] * (values.ndim - 2))
    return values.take_along_dim(index, 0)
