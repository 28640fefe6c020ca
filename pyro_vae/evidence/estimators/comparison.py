"""Compares two models by their log p(x) on the same data."""

from __future__ import annotations

import math

from pyro_vae.evidence.results.comparison import Comparison
from pyro_vae.evidence.results.evidence import Evidence


def compare(first: Evidence, second: Evidence) -> Comparison:
    """The difference of two models' log p(x) on the same datapoints, with its errors.

    Datapoints that are hard for one model are mostly hard for the other, so differences are taken datapoint by
    datapoint. Their mean is then known far better than either mean.

    Args:
        first: An estimate for one model, from :func:`~pyro_vae.evidence.estimate` or another estimator.
        second: An estimate for another model, on the same datapoints in the same order.

    Raises:
        TypeError: If one of them is not an ``Evidence``.
        ValueError: If they have different numbers of datapoints.

    Example:
        >>> other = VAE(vae.prior, likelihoods.Bernoulli(nn.mlp(2, [8], (1, 4, 4))), vae.posterior)
        >>> a, b = (evidence.estimate(each.model, each.guide, x) for each in (vae, other))
        >>> print(evidence.compare(a, b))
        first - second = ... nats per datapoint, mean over 8 datapoints
        ...
    """
    for name, result in (("first", first), ("second", second)):
        if not isinstance(result, Evidence):
            raise TypeError(f"{name} is of type {type(result).__name__}; expected an Evidence, as estimate returns it")
    if len(first.log_prob) != len(second.log_prob):
        raise ValueError(
            f"first has {len(first.log_prob)} datapoints and second has {len(second.log_prob)}; "
            "expected the same datapoints in the same order"
        )
    bias = first.bias + second.bias
    noise = ((first.error - first.bias).square() + (second.error - second.bias).square()).sqrt()
    unknown = ~(first.settled & second.settled)
    return Comparison(
        difference=first.log_prob - second.log_prob,
        error=(bias + noise).masked_fill(unknown, math.inf),
        bias=bias.masked_fill(unknown, math.inf),
    )
