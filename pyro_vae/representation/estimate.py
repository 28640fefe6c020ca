"""A mean over data, with its error."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

__all__ = ["Estimate", "estimate_mean"]


class Estimate(NamedTuple):
    """A mean over test data, and its standard error as an estimate for all the data of which these are a sample.

    The error does not say how the mean would change with other training data, or with another seed of training.
    """

    value: float
    std_error: float

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.std_error:.2g}"


def estimate_mean(values: Tensor) -> Estimate:
    """The mean of independent values ``[n]``. Its error is infinite for one of them, for 0 and 1 that of a binomial."""
    std_error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(values.mean().item(), std_error)
