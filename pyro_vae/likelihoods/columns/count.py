"""Columns of counts."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.checks import check_positive
from pyro_vae.distributions import NegativeBinomial
from pyro_vae.nn.kind import Kind

__all__ = ["Count"]


class Count(Kind):
    """Counts with a negative binomial distribution, of which a network gives the mean and the inverse dispersion.

    For a large inverse dispersion it is the Poisson distribution.

    Args:
        center: What is subtracted from log(1 + x) to standardize it, such as its mean over the column.
        scale: What is divided by, such as its standard deviation.

    Raises:
        ValueError: If ``scale`` is not positive.
    """

    num_parameters = 2
    num_features = 1

    def __init__(self, center: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.center, self.scale = float(center), float(check_positive("scale", scale))

    def forward(self, parameters: Tensor) -> NegativeBinomial:
        """Returns the distribution of one value, for parameters ``[*batch, 2]``."""
        log_mean, log_inverse_dispersion = parameters.unbind(-1)
        return NegativeBinomial(self.center + self.scale * log_mean, log_inverse_dispersion, validate_args=False)

    def features(self, x: Tensor) -> Tensor:
        """log(1 + x), standardized, ``[*batch, 1]``, for values ``[*batch]``."""
        return ((x.log1p() - self.center) / self.scale).unsqueeze(-1)
