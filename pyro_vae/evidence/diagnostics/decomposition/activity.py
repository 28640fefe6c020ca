"""Which latent units depend on x, as far as the datapoints and draws show."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, distributions

LEAST_ACTIVITY = 0.01  # Burda et al. 2015, section 5.2
SURE = 4.0  # standard errors: of 30000 units at the threshold, one is called active, and one inactive
# The mean of other distributions may be a direction or a mode, as of VonMises, or not exist.
WITH_MEAN = (
    distributions.Bernoulli,
    distributions.Beta,
    distributions.Dirichlet,
    distributions.Gamma,
    distributions.Laplace,
    distributions.LogNormal,
    distributions.LowRankMultivariateNormal,
    distributions.MultivariateNormal,
    distributions.Normal,
)


class Activity(NamedTuple):
    """The activity of the latent units of one site, each ``[...]``."""

    variance: Tensor  #: The variance over the data of the mean of q(z | x).
    active: Tensor  #: Whether it is above 0.01, by four standard errors.
    inactive: Tensor  #: Whether it is below 0.01, by four standard errors.


def activity(means: Tensor, noise: Tensor, num_particles: int) -> Activity:
    """The variance over the data of the means of q(z | x), and whether it is more than 0.01.

    The variance of n means has about n - 1 degrees of freedom, as if they were normal. Its ratio to the variance at the
    threshold then has an F distribution, which Paulson's transformation (1942, equation 6) makes normal.

    Args:
        means: Estimates of the means of q(z | x) for each datapoint, ``[n, ...]``.
        noise: The variances of these estimates, ``[n, ...]``: zero for exact means.
        num_particles: The number of draws that each estimate is from.
    """
    n = len(means)
    added = noise.mean(0)
    if n == 1:
        unknown = torch.zeros_like(added, dtype=torch.bool)
        return Activity(torch.zeros_like(added), unknown, unknown)
    variance = means.var(0)
    root = (variance / (LEAST_ACTIVITY + added)).pow(1 / 3)
    first = 2 / (9 * (n - 1))
    second = torch.where(added > 0, 2 / (9 * n * max(1, num_particles - 1)), 0.0)
    score = ((1 - second) * root - (1 - first)) / (second * root.square() + first).sqrt()
    return Activity((variance - added).clamp_min(0), score > SURE, score < -SURE)


def mean_or_draw(site: Any) -> Tensor:
    """The mean of q at a site, given the sites before it, if it is known, as it has less noise; else the draw."""
    q, draw = site["fn"], site["value"]
    family = q
    while isinstance(family, distributions.Independent):
        family = family.base_dist
    return q.mean.expand_as(draw) if isinstance(family, WITH_MEAN) else draw
