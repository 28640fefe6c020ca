"""Which latent units say something of x, as far as so many datapoints and draws can tell."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    Dirichlet,
    Gamma,
    Independent,
    Laplace,
    LogNormal,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    constraints,
)

__all__ = ["Activity", "activity", "is_real", "mean_or_draw"]

LEAST = 0.01  # Burda et al. 2015, section 5.2
SURE = 4.0  # standard errors: of 30000 units at the threshold, one is called active, and one inactive
# Others may call a direction or a mode their mean, as VonMises does, or have none.
WITH_MEAN = (
    Bernoulli,
    Beta,
    Dirichlet,
    Gamma,
    Laplace,
    LogNormal,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)


class Activity(NamedTuple):
    """Of the latent units of one site, each ``[...]``."""

    variance: Tensor  #: Over the data, of the mean of q(z | x).
    active: Tensor  #: Whether it is surely above 0.01.
    inactive: Tensor  #: Whether it is surely below.


def activity(means: Tensor, noise: Tensor, num_particles: int) -> Activity:
    """How much the means of q(z | x) vary over the data, and whether that is more than 0.01.

    The variance of n means has about n - 1 degrees of freedom, as that of normals has. Its ratio to what it would be at
    the threshold is then distributed as F, which becomes a normal by Paulson's transformation (1942, equation 6).

    Args:
        means: The means, estimated for each datapoint, ``[n, ...]``.
        noise: The variances of these estimates, ``[n, ...]``: zero for means that are exact.
        num_particles: The number of draws that each is estimated from.
    """
    n = len(means)
    added = noise.mean(0)
    if n == 1:
        unknown = torch.zeros_like(added, dtype=torch.bool)
        return Activity(torch.zeros_like(added), unknown, unknown)
    variance = means.var(0)
    root = (variance / (LEAST + added)).pow(1 / 3)
    first = 2 / (9 * (n - 1))
    second = torch.where(added > 0, 2 / (9 * n * max(1, num_particles - 1)), 0.0)
    score = ((1 - second) * root - (1 - first)) / (second * root.square() + first).sqrt()
    return Activity((variance - added).clamp_min(0), score > SURE, score < -SURE)


def mean_or_draw(site: Any) -> Tensor:
    """The mean of q at a site given the sites before it, where it is known, in the place of a draw: of less noise."""
    q, draw = site["fn"], site["value"]
    family = q
    while isinstance(family, Independent):
        family = family.base_dist
    return q.mean.expand_as(draw) if isinstance(family, WITH_MEAN) else draw


def is_real(site: Any) -> bool:
    """Whether a site is of real numbers, any of them, that have a density."""
    distribution = site["fn"]
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    try:
        support = site["fn"].support
    except (NotImplementedError, AttributeError):
        return False
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, type(constraints.real)) and not isinstance(distribution, Delta)
