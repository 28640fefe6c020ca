"""A mean over data, with its error."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from pyro_vae.html_table import html_table

__all__ = ["Estimate", "estimate_mean", "estimate_share"]


class Estimate(NamedTuple):
    """A mean over test data, and its standard error as an estimate for all the data of which these are a sample.

    The error does not say how the mean would change with other training data, or with another seed of training.
    """

    value: float
    std_error: float

    def summary(self) -> str:
        """The mean with its standard error."""
        if math.isinf(self.std_error):
            return f"{self.value:.4g} (a single datapoint, which cannot tell its error)"
        return f"{self.value:.4g} +- {self.std_error:.2g}"

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return html_table({"mean": f"{self.value:.4g}", "standard error": f"{self.std_error:.2g}"})


def estimate_mean(values: Tensor) -> Estimate:
    """The mean of independent values ``[n]``. Its error is infinite for one of them."""
    std_error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(values.mean().item(), std_error)


def estimate_share(values: Tensor) -> Estimate:
    """The mean of independent values ``[n]`` that are 0 or 1, with the error of a binomial.

    If all are the same, the error is as if one were not, which is 1 / n: so many cannot tell the share from this.
    """
    share, std_error = estimate_mean(values.double())
    return Estimate(share, max(std_error, 1 / len(values)))
