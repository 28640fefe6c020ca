"""Moves normals from the modes of p(x, z) to the centers where they fit the posterior best."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vae.evidence.unconstrained.log_joint import LogJoint
from pyro_vae.evidence.unconstrained.normal_mixture import NormalMixture

MOST_DIRECTIONS = 16
STEPS = 2
LONGEST_STEP = 3.0  # standard deviations; further away the normal does not fit
NEGLIGIBLE = 0.01  # the share of a component that is not moved


@torch.no_grad()
def at_means(log_joint: LogJoint, normals: NormalMixture, rows: Tensor) -> NormalMixture:
    """Normals of the same widths, with the centers that minimize KL(q || p) to the posterior.

    A skewed posterior has its mass to one side of its mode: with 50 latents and a decoder of images, log-weights of
    samples around the mode vary three times as much as around the mean.

    The gradient of the KL with respect to the center is minus the mean, over the normal, of the gradient of log p(x, z)
    (Opper & Archambeau 2009, eq. 6). If the Hessian is about -1 in the coordinates of the normal, this mean is also
    Newton's step. The mean is over pairs of opposite points, in orthogonal directions and at the distance where the
    mass of the normal is, so that odd terms cancel.

    Args:
        log_joint: log p(x, z) of a block of datapoints.
        normals: Normals at the modes, for some of its rows.
        rows: These rows, ``[m]``.

    Returns:
        The normals. The first step is undone where the mean of log p(x, z) over the points does not rise. The second
        step is not checked, since this would cost half as much again.
    """
    if normals.factor.ndim == 3:  # diagonal: not the curvature, but the prior's width
        return normals
    center = normals.center.clone()
    for mode, log_share in enumerate(normals.log_weight):
        some = (log_share > math.log(NEGLIGIBLE)).nonzero()[:, 0]
        if len(some):
            center[mode, some] = _at_mean(log_joint, center[mode, some], normals.factor[mode, some], rows[some])
    return normals._replace(center=center)


def _at_mean(log_joint: LogJoint, center: Tensor, factor: Tensor, rows: Tensor) -> Tensor:
    """The new centers, for centers ``[m, dims]`` and factors of the covariances ``[m, dims, dims]``."""
    dims = center.shape[-1]
    normal = torch.randn(dims, min(dims, MOST_DIRECTIONS), dtype=center.dtype, device=center.device)
    directions = torch.linalg.qr(normal).Q.T * math.sqrt(dims)
    around = (factor @ torch.cat([directions, -directions]).T).permute(2, 0, 1)  # [points, m, dims]
    best = torch.full_like(center[:, 0], -torch.inf)
    moved = center
    for _ in range(STEPS):
        value, gradient = (part.mean(0) for part in log_joint.gradient(moved + around, rows))
        up = (value > best) & gradient.isfinite().all(-1)
        center = torch.where(up[:, None], moved, center)
        best = torch.where(up, value, best)
        step = (factor.mT @ gradient[..., None])[..., 0]
        step = step * (LONGEST_STEP / step.norm(dim=-1, keepdim=True)).clamp_max(1.0)
        moved = torch.where(up[:, None], moved + (factor @ step[..., None])[..., 0], center)
    return moved
