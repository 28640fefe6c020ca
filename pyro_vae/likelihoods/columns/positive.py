"""Columns of positive numbers."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.checks import check_positive
from pyro_vae.distributions.positive_scale import positive_scale
from pyro_vae.nn.kind import Kind

__all__ = ["Positive"]


class Positive(Kind):
    """Positive numbers with a log-normal distribution, of which a network gives the location and the scale.

    Args:
        center: What is subtracted from the logarithm to standardize it, such as the mean of the logarithms.
        scale: What is divided by, such as their standard deviation.
        floor: The smallest standard deviation of the logarithm, in units of ``scale``.

    Raises:
        ValueError: If ``scale`` or ``floor`` is not positive.
    """

    num_parameters = 2
    num_features = 1

    def __init__(self, center: float = 0.0, scale: float = 1.0, floor: float = 0.01) -> None:
        super().__init__()
        self.center, self.scale = float(center), float(check_positive("scale", scale))
        self.floor = float(check_positive("floor", floor))

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """Returns the distribution of one value, for parameters ``[*batch, 2]``."""
        loc, raw = parameters.unbind(-1)
        return dist.LogNormal(
            self.center + self.scale * loc, self.scale * (self.floor + positive_scale(raw)), validate_args=False
        )

    def features(self, x: Tensor) -> Tensor:
        """The standardized logarithm, ``[*batch, 1]``, for values ``[*batch]``."""
        return ((x.log() - self.center) / self.scale).unsqueeze(-1)
