"""Normal approximations of the likelihood, for latents whose distributions depend on other latents."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.evidence.unconstrained.log_joint import LogJoint
from pyro_vae.evidence.unconstrained.modes import MOST_DIMS, STEP, highest
from pyro_vae.evidence.unconstrained.starts import prior_scale, starts
from pyro_vae.weights import Program

NUM_STARTS = 8


@torch.no_grad()
def informed(log_joint: LogJoint, guide: Program) -> LogJoint:
    """The same log p(x, z), in coordinates that take account of the data.

    For each dependent site, from the last to the first, the slope and the curvature of log p(x, z) along its elements
    are measured near a mode, in units of p(z1 | z2). Without data the curvature is -1. The rest comes from the data:
    it gives the normal approximation of the likelihood.

    Args:
        log_joint: log p(x, z) of a block, in coordinates without an approximate likelihood.
        guide: The guide; its mean and draws are among the starts of the search for a mode.
    """
    vectors, x = log_joint.vectors, log_joint.x
    if not vectors.dependent or log_joint.dims > MOST_DIMS:
        return log_joint
    rows = torch.arange(len(x), device=x.device)
    position = highest(log_joint, starts(log_joint, guide, NUM_STARTS, rows), prior_scale(log_joint), rows)
    at_mode, _ = log_joint.to_latents(position[None])
    at_prior = vectors.units_at(position[None], x)
    likelihood = x.new_zeros(len(x), 2, log_joint.dims, dtype=position.dtype)
    for name in reversed(vectors.dependent):
        if name in at_prior:
            location, scale = (part[0] for part in at_prior[name])
            likelihood[..., vectors.columns(name)] = _of_site(log_joint, name, position, location, scale)
            log_joint = log_joint.with_likelihood(likelihood)
            position = log_joint.to_vectors(at_mode)[0]
    return log_joint


def _of_site(log_joint: LogJoint, name: str, position: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Precision, and precision times mean, of the elements of a site, ``[n, 2, size]``."""
    rows, columns = torch.arange(len(position), device=position.device), log_joint.vectors.columns(name)
    directions = torch.eye(position.shape[-1], dtype=position.dtype, device=position.device)[columns]
    size = STEP.get(position.dtype, 0.1)
    beside = position + size * directions[:, None]
    slopes = log_joint.gradient(torch.cat([position[None], beside]), rows)[1][..., columns]
    curvature = (slopes[0] - slopes[1:].diagonal(dim1=0, dim2=2)) / size
    ratio = curvature - 1  # of the precision of the likelihood to that of p(z1 | z2)
    known = (ratio > 0) & ratio.isfinite() & slopes[0].isfinite()
    own = position[:, columns]
    precision = ratio / scale.square()
    weighted = precision * (location + scale * own) + (slopes[0] + own) / scale
    return torch.stack([torch.where(known, part, 0.0) for part in (precision, weighted)], dim=1)
