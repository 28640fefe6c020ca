"""The accuracy that the methods aim at."""

from __future__ import annotations

from typing import NamedTuple

SHARE_OF_TOLERANCE = 0.125  # the bias to aim at, as a share of the tolerance
MARGIN = 0.85  # of the variance to aim at, since a pilot does not know it well


class Settings(NamedTuple):
    """The arguments of :func:`~pyro_vae.evidence.estimate` that the methods depend on."""

    tolerance: float
    max_temperatures: int
    num_datapoints: int  #: The number of datapoints that the mean is taken over.

    @property
    def variance_for_bias(self) -> float:
        """The variance of an estimate with a small enough bias, which is about half the variance."""
        return 2 * SHARE_OF_TOLERANCE * self.tolerance

    @property
    def variance(self) -> float:
        """The variance to aim at for the estimate of a datapoint: small enough for bias and noise of the mean."""
        return min(self.variance_for_bias, self.num_datapoints * (self.tolerance / 2) ** 2)
