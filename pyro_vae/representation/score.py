"""A mean over test data with its standard error."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from pyro_vae.html_table import html_table
from pyro_vae.weights import standard_error


class Score(NamedTuple):
    """A mean over test data, and its standard error as an estimate of the mean over the whole population.

    The error does not include the variation from other training data or another random seed of the training.

    Attributes:
        value: The mean.
        std_error: Its standard error; infinite for a single datapoint.

    Example:
        >>> print(representation.reconstruction_error(torch.zeros(3, 1), torch.tensor([[0.0], [1.0], [2.0]])))
        1.667 +- 1.2
    """

    value: float
    std_error: float

    def summary(self) -> str:
        """The mean with its standard error."""
        if math.isinf(self.std_error):
            return f"{self.value:.4g} (a single datapoint; its error is unknown)"
        return f"{self.value:.4g} +- {self.std_error:.2g}"

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return html_table({"mean": f"{self.value:.4g}", "standard error": f"{self.std_error:.2g}"})


def mean_score(values: Tensor) -> Score:
    """The mean of independent values ``[n]`` with its standard error, which is infinite for a single value."""
    return Score(values.mean().item(), standard_error(values))


def share_score(values: Tensor) -> Score:
    """The share of ones among independent values ``[n]`` that are 0 or 1, with its standard error.

    If all values are the same, the error is 1 / n, as if one of them were different, since n values cannot distinguish
    this share from that.
    """
    share, std_error = mean_score(values.double())
    return Score(share, max(std_error, 1 / len(values)))
