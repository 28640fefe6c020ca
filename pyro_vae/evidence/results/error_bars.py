"""The error of an estimate of log p(x), bias included, as far as its own weights can tell.

If a proposal misses much of the posterior, only few samples show it: most weights look alike, and they determine the
standard error. The bulk of the weights tells more. Powers w^b with b < 1 have lighter tails, so the cumulant function
K(b) = log E[w^b] is well known from the same samples at b = 1/4, 1/2 and 3/4. The growth of K'' there tells what to
expect beyond: for a normal proposal that is too narrow, K''(b) = c / (1 - t b)^2, and the weights have a finite
variance only for t < 1/2. Such a t, fitted to the sample, gives the relative variance of the weights,
exp(K(2) - 2 K(1)) - 1, though no sample has seen it. Three rules follow:

- The error is infinite for t above 1/2, and if the relative variance is above a tenth of the number of samples.
- Standard error and bias follow from this relative variance, if it is above that of the sample.
- If the weights vary more than their bulk predicts, the tail is heavy. The part beyond the largest weight then has
  about the mass of that weight, and counts as missing.

The constants were chosen by simulation; ``benchmarks/error_bars.py`` shows the results. With 500 samples and more, the
intervals of all problems there cover at least 93%; with 50 samples, and a tail that few of them see, down to 84%. This
holds over all samples of a problem: if most samples have no known error, those with one have missed the tail by luck.
No rule can find what no sample shows, such as a mode that no proposal was ever near.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

POWERS = (0.25, 0.5, 0.75)  #: Of the weights; the sums of these are kept.
LEAST_SAMPLES = 5  # with fewer, Student's interval would be ten times the error

MOST_TAIL = 0.5  # t; above it, the variance of the weights is infinite
MOST_VARIANCE = 0.1  # of the relative variance of the mean weight
MOST_INFLATION = 3.0  # of the relative variance, over that of the sample
MANY_SAMPLES, MOST_OF_ONE, MOST_K = 4096, 0.01, 0.5  # of a sample that has seen the tail; shares of the sum
ROUNDING = 1e-9  # a relative variance below this is rounding, and its tail has no meaning
Z = 1.959964  # of the normal distribution, at 97.5%


class Moments(NamedTuple):
    """Statistics of the log-weights of a sample; all tensors are ``[n]``, in float64."""

    count: int  # type: ignore[assignment]  # it hides tuple.count, which has no use here
    """The number of samples."""
    log_means: Tensor  #: log mean(w^b) for b = 1/4, 1/2, 3/4, 1 and 2, ``[5, n]``.
    zeros: Tensor  #: The fraction of weights that are zero.
    largest: Tensor  #: The largest weight, as a fraction of the sum.
    slope: Tensor  #: The mean distance of the log-weights in the tail from its threshold (Hill 1975).
    pareto_k: Tensor  #: The Pareto k-hat; infinite or NaN where there is none.

    def rows(self, index: Tensor) -> Moments:
        """The statistics of some of the datapoints."""
        return Moments(self.count, *(part[..., index] for part in self[1:]))


class ErrorBars(NamedTuple):
    """Bounds in nats, each ``[n]``."""

    bias: Tensor  #: A bound on the distance of log p(x) from the expectation of the estimate.
    error: Tensor  #: The half-width of a 95% interval for log p(x), bias included.


def error_bars(sample: Moments, pilot: Moments | None = None) -> ErrorBars:
    """Returns the errors of log-mean weights, infinite where they are not known.

    Args:
        sample: The weights of the estimate.
        pilot: More weights from the same proposals, which also tell about the tail.
    """
    tail, predicted, excess = _shape(sample)
    least = _relative_variance(sample)
    if pilot is not None:
        other = _shape(pilot)
        tail, predicted, excess = (
            torch.maximum(mine, his) for mine, his in zip((tail, predicted, excess), other, strict=True)
        )
        least = torch.maximum(least, _relative_variance(pilot))
    count = sample.count
    believed = (tail <= MOST_TAIL) & (predicted <= MOST_VARIANCE * count) & (count >= LEAST_SAMPLES)

    # The standard error is larger where the tail is heavier; few samples underestimate both.
    known = torch.minimum(torch.maximum(predicted, least), MOST_INFLATION * least) / count
    few = 1.6 / count + (10 / count) * ((tail > 0) & (count >= 25))
    widened = 1 + 1.2 * tail.clamp_min(0) + few
    bias = known * widened.square()
    spread = student(count - 1) * known.sqrt() * widened

    # If the tail of the log-weights is exponential with mean s, its mass is 1 / (1 - s) times the largest weight.
    missing = (sample.largest / (1 - _tail_slope(sample)) - 1 / count).clamp_min(0)
    unseen = 1.5 * (1 + 100 / count) * excess * missing
    error = bias + spread + missing + unseen
    bias = bias + 0.4 * (missing + unseen) * excess.clamp_max(1)
    return ErrorBars(bias.masked_fill(~believed, torch.inf), error.masked_fill(~believed, torch.inf))


def expected_relative_variance(sample: Moments) -> Tensor:
    """The expected relative variance of the weights in a larger sample (variance over squared mean), ``[n]``.

    Infinite where the tail is too heavy.
    """
    tail, predicted, _ = _shape(sample)
    return predicted.masked_fill(tail > MOST_TAIL, torch.inf)


def _relative_variance(sample: Moments) -> Tensor:
    """The variance of the weights over the square of their mean, in the sample itself."""
    *_, first, second = sample.log_means
    return torch.expm1(second - 2 * first).clamp_min(0) * (sample.count / max(1, sample.count - 1))


def _shape(sample: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """The t of the tail, the relative variance that the bulk predicts, and the excess of the sample over it."""
    quarter, half, three_quarters, first, second = sample.log_means
    zero = torch.log1p(-sample.zeros)  # K(0) without weights of zero, which are bounded and so no tail
    low = (zero - 2 * quarter + half).clamp_min(0)
    middle = (quarter - 2 * half + three_quarters).clamp_min(0)
    high = (half - 2 * three_quarters + first).clamp_min(0)
    seen = _relative_variance(sample)
    tiny = 1e-300

    # From the ratio of K'' at 3/4 and at 1/4; then K(2) - 2 K(1) for this t.
    ratio = (high / low.clamp_min(tiny)).sqrt()
    tail = ((ratio - 1) / (0.75 * ratio - 0.25).clamp_min(1e-3)).masked_fill(ratio <= 0.34, -20.0).clamp(-20, 2)
    bounded = tail.clamp(max=0.499)
    curvature = 16 * middle * (1 - bounded / 2).square()  # K''(0)
    safe = torch.where(bounded.abs() < 1e-3, 1e-3, bounded)
    log_predicted = curvature / safe.square() * (2 * torch.log1p(-safe) - torch.log1p(-2 * safe))

    # The same with the K'' at 1/2, which a small sample knows best; less where K'' falls, as for bounded weights.
    falls = torch.minimum(high / middle.clamp_min(tiny), middle / low.clamp_min(tiny)).clamp(0, 1)
    log_flat = 16 * middle * falls.sqrt()
    predicted = torch.maximum(seen, torch.expm1((torch.maximum(log_predicted, log_flat) - zero).clamp(0, 50)))
    usual = torch.minimum(log_predicted, 16 * middle).clamp_min(tiny)
    excess = (((second - 2 * first + zero) / usual - 1) / 0.6).clamp(0, 2)
    # A large sample without outstanding weights has seen the tail, so the prediction of the bulk no longer matters.
    known = (sample.largest <= MOST_OF_ONE) & (sample.pareto_k <= MOST_K) & (sample.count >= MANY_SAMPLES)
    tail = torch.where(known, tail.clamp(max=MOST_TAIL), tail)
    predicted = torch.where(known, torch.minimum(predicted, 1.5 * seen), predicted)
    rounding = seen < ROUNDING
    return tail.masked_fill(rounding, 0), torch.where(rounding, seen, predicted), excess.masked_fill(rounding, 0)


def _tail_slope(sample: Moments) -> Tensor:
    """The mean of the exponential tail of the log-weights, between its slope and the k-hat; 0 if there is none."""
    k = torch.where(sample.pareto_k.isfinite(), sample.pareto_k, 0.0).clamp(0, 2)
    return (k * sample.slope).sqrt().clamp(max=0.8)


def student(degrees: int, z: float = Z) -> float:
    """The quantile of Student's t where that of the normal distribution is z (Abramowitz & Stegun 26.7.3 and 26.7.5).

    Those at 97.5% are right to 1%, at 99% to 2%.
    """
    n = max(1, degrees)
    if n <= 2:
        p = NormalDist().cdf(z)
        return math.tan(math.pi * (p - 0.5)) if n == 1 else (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3
