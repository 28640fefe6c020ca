"""Bounds on the mutual information of x and z, on the marginal KL, and on the total correlation of the units."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

from torch import Tensor

from pyro_vae.evidence.diagnostics.decomposition.aggregate_posterior import AggregateDensities
from pyro_vae.evidence.results.error_bars import student
from pyro_vae.weights import standard_error

LEAST_DRAWS = 10  # fewer do not show how much the values vary
GUESSES = 3  # densities that stand for q(z), of which the best bound is taken
Z = NormalDist().inv_cdf(1 - 0.025 / GUESSES)  # so that all bounds together hold with 97.5%


class Bounds(NamedTuple):
    """The ends of a 95% interval, in nats; the upper one is infinite if nothing is known."""

    lower: float
    upper: float

    def __str__(self) -> str:
        if math.isinf(self.upper):
            return "not known"
        return f"from {self.lower:.3f} to {self.upper:.3f}"


class InformationBounds(NamedTuple):
    """Bounds for all the data of which the datapoints are a sample."""

    mutual_information: Bounds  #: Of x and z, under q.
    marginal_kl: Bounds  #: KL(q(z) || p(z)).
    total_correlation: Bounds | None  #: KL(q(z) || product of q(z_d)).


def information_bounds(
    densities: AggregateDensities, log_prior: Tensor, rate: Tensor, index: Tensor
) -> InformationBounds:
    """Bounds the parts of the rate, with densities that are too high or too low at draws from q(z).

    The mean of q(z | x) over datapoints is too high at a draw from one of them: on average its log is at least that of
    q(z). Any density that is independent of this datapoint is too low on average, by KL(q(z) || density): the mean over
    the other datapoints (Poole et al. 2019, equations 12 and 13), a normal, or the prior.

    Args:
        densities: Log-densities of m draws, each from q(z | x) of a different datapoint.
        log_prior: log p(z) of the draws, ``[m]``.
        rate: KL(q(z | x) || p(z)) of each datapoint, or an unbiased estimate, ``[n]``.
        index: The datapoint of each draw, ``[m]``.
    """
    m, nothing = len(index), Bounds(0.0, math.inf)
    units = densities.units_everyone, densities.units_others
    if m < LEAST_DRAWS:
        return InformationBounds(nothing, nothing, None if units[0] is None else nothing)
    own, high = densities.own, densities.everyone
    low = [guess for guess in (densities.others, densities.normal) if guess is not None and guess.isfinite().all()]

    def ends(values: Tensor, remainder: Tensor) -> tuple[float, float]:
        """The narrower of two intervals for the mean of values, which is that of the rate minus the remainder."""
        intervals = _interval(values), _interval_of_difference(rate, remainder, index)
        return min(intervals, key=lambda ends: ends[1] - ends[0])

    information = _ordered(
        max(0.0, ends(own - high, high - log_prior)[0]),
        min([_interval(rate)[1], *(ends(own - guess, guess - log_prior)[1] for guess in low)]),
    )
    marginal = _ordered(
        max([0.0, *(ends(guess - log_prior, own - guess)[0] for guess in low)]),
        ends(high - log_prior, own - high)[1],
    )
    correlation = None
    if units[0] is not None and units[1] is not None:
        correlation = _ordered(
            max([0.0, *(_interval(guess - units[0].sum(-1))[0] for guess in low)]),
            _interval(high - units[1].sum(-1))[1],
        )
    return InformationBounds(information, marginal, correlation)


def _ordered(*ends: float) -> Bounds:
    """Bounds with the lower end first and no end below 0, where noise may put them."""
    lower, upper = sorted(max(0.0, end) for end in ends)
    return Bounds(lower, upper)


def _interval(values: Tensor) -> tuple[float, float]:
    """An interval for the mean of independent values, ``[m]``."""
    half = student(len(values) - 1, Z) * standard_error(values)
    return values.mean().item() - half, values.mean().item() + half


def _interval_of_difference(rate: Tensor, values: Tensor, index: Tensor) -> tuple[float, float]:
    """An interval for the mean of rates ``[n]`` minus that of values ``[m]`` of some of the same datapoints."""
    mean = rate.mean().item() - values.mean().item()
    covariance = ((rate[index] - rate[index].mean()) * (values - values.mean())).sum() / (len(values) - 1)
    variance = rate.var() / len(rate) + values.var() / len(values) - 2 * covariance / len(rate)
    half = student(len(values) - 1, Z) * math.sqrt(max(0.0, variance.item()))
    return mean - half, mean + half
