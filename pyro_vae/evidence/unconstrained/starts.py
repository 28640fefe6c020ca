"""Where the search for modes of p(x, z) starts."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.evidence.unconstrained.log_joint import LogJoint
from pyro_vae.evidence.unconstrained.normal_mixture import FEW_DIMS
from pyro_vae.weights import Program

DRAWS = 32  # from the prior
GUIDE_DRAWS = 16
MORE_DRAWS = 256  # from the prior, in few dimensions


@torch.no_grad()
def prior_scale(log_joint: LogJoint) -> Tensor:
    """The approximate width of the prior in each dimension, ``[n, dims]``.

    No posterior mode should be much wider. If half of the prior's mass is in a narrow mode, the median deviation is the
    width of that mode, but the outer quantiles are those of the whole.
    """
    draws = log_joint.draw(log_joint.model, DRAWS)
    ordered, at = draws.sort(0).values, 0.05 * (DRAWS - 1)  # torch.quantile refuses large tensors
    below = int(at)
    low = ordered[below].lerp(ordered[below + 1], at - below)
    high = ordered[-1 - below].lerp(ordered[-2 - below], at - below)
    return torch.maximum(center_and_scale(draws)[1], (high - low) / (2 * 1.6449))


def center_and_scale(draws: Tensor) -> tuple[Tensor, Tensor]:
    """The median of draws ``[draws, n, dims]``, and the standard deviation of a normal with their median deviation."""
    center = draws.median(0).values
    return center, ((draws - center).abs().median(0).values * 1.4826).clamp_min(1e-6)


@torch.no_grad()
def starts(log_joint: LogJoint, guide: Program, num_starts: int, rows: Tensor) -> Tensor:
    """The mean of the guide, draws from it, the most likely draw from the prior, and others about as likely."""
    guided = log_joint.draw(guide, GUIDE_DRAWS)[:, rows]
    draws = MORE_DRAWS if log_joint.dims <= FEW_DIMS else DRAWS
    prior = log_joint.draw(log_joint.model, max(draws, num_starts))[:, rows]
    log_prior, joint = log_joint.densities(prior, rows)
    likelihood = (joint - log_prior).double().nan_to_num(nan=-torch.inf, posinf=-torch.inf)
    from_guide = min(GUIDE_DRAWS, (num_starts - 2) // 3)
    spread = _tempered(likelihood, num_starts - 2 - from_guide)
    chosen = torch.cat([likelihood.argmax(0, keepdim=True), spread])
    chosen = prior.take_along_dim(chosen[..., None], 0)
    return torch.cat([guided.mean(0, keepdim=True), guided[:from_guide], chosen])


def _tempered(log_likelihood: Tensor, count: int) -> Tensor:
    """Indices ``[count, m]`` of draws ``[draws, m]``, chosen by a tempered likelihood, so that many have a chance."""
    inverse_temperature = torch.ones_like(log_likelihood[0])
    finite = log_likelihood.clamp_min(-1e30)
    for _ in range(12):
        share = (inverse_temperature * finite).softmax(0)
        inverse_temperature = torch.where(
            share.square().sum(0) * 2 * count > 1, inverse_temperature / 2, inverse_temperature
        )
    share = (inverse_temperature * finite).softmax(0) + 1e-12
    return share.T.multinomial(count, replacement=False).T
