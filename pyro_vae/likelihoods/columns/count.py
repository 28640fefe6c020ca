"""Columns of counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.checks import check_positive
from pyro_vae.distributions import NegativeBinomial
from pyro_vae.nn.kind import Kind


class Count(Kind):
    """Counts with a negative binomial distribution; a network gives the mean and the inverse dispersion.

    For a large inverse dispersion it is the Poisson distribution.

    Args:
        center: What is subtracted from log(1 + x) to standardize it, such as its mean over the column.
        scale: What is divided by, such as its standard deviation.
        shared: Whether all datapoints have one inverse dispersion, a parameter, as in :class:`Real`.

    Raises:
        ValueError: If ``scale`` is not positive.

    Example:
        >>> kind = likelihoods.columns.Count()
        >>> kind(torch.zeros(3, kind.num_parameters)).log_prob(torch.tensor([0.0, 2.0, 5.0])).shape
        torch.Size([3])
    """

    num_features = 1

    def __init__(self, center: float = 0.0, scale: float = 1.0, *, shared: bool = False) -> None:
        super().__init__()
        self.shared = shared
        self.num_parameters = 1 if shared else 2
        self.raw = nn.Parameter(torch.zeros(())) if shared else None
        self.center, self.scale = float(center), float(check_positive("scale", scale))

    def forward(self, parameters: Tensor) -> NegativeBinomial:
        """Returns the distribution of one value, for parameters ``[*batch, num_parameters]``."""
        log_inverse_dispersion = parameters[..., 1] if self.raw is None else self.raw
        log_mean = self.center + self.scale * parameters[..., 0]
        return NegativeBinomial(log_mean, log_inverse_dispersion, validate_args=False)

    def features(self, x: Tensor) -> Tensor:
        """log(1 + x), standardized, ``[*batch, 1]``, for values ``[*batch]``."""
        return ((x.log1p() - self.center) / self.scale).unsqueeze(-1)
