"""The logarithm of a mean of exponentials."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["log_mean_exp"]


def log_mean_exp(values: Tensor, dim: int = 0) -> Tensor:
    """The log of the mean of exp(values) over a dimension, which is left out."""
    return values.logsumexp(dim) - math.log(values.shape[dim])
