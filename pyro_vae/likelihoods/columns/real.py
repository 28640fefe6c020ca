"""Columns of real numbers."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.checks import check_positive
from pyro_vae.distributions.positive_scale import positive_scale
from pyro_vae.nn.kind import Kind


class Real(Kind):
    """Real numbers with a normal distribution; a network gives the location and the scale.

    The network works with standardized numbers; the density is that of the data in their own units.

    Args:
        center: What is subtracted to standardize, such as the mean of the column.
        scale: What is divided by, such as its standard deviation.
        shared: Whether the noise has one scale for all datapoints, a parameter, rather than one that depends on z. That
            is better for small tables.
        floor: The smallest standard deviation of the noise, in units of ``scale``. Without it, the density of a column
            with repeated values has no bound.

    Raises:
        ValueError: If ``scale`` or ``floor`` is not positive.

    Example:
        >>> kind = likelihoods.columns.Real(center=170.0, scale=10.0)  # heights, in cm
        >>> kind(torch.zeros(3, 2)).mean
        tensor([170., 170., 170.])
    """

    num_features = 1

    def __init__(self, center: float = 0.0, scale: float = 1.0, floor: float = 0.01, *, shared: bool = False) -> None:
        super().__init__()
        self.shared = shared
        self.num_parameters = 1 if shared else 2
        self.raw = nn.Parameter(torch.zeros(())) if shared else None
        self.center, self.scale = float(center), float(check_positive("scale", scale))
        self.floor = float(check_positive("floor", floor))

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """Returns the distribution of one value, for parameters ``[*batch, num_parameters]``."""
        return dist.Normal(*self.location_and_scale(parameters), validate_args=False)

    def location_and_scale(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Location and standard deviation in the units of the data, each ``[*batch]``."""
        loc, raw = parameters[..., 0], parameters[..., 1] if self.raw is None else self.raw
        return self.center + self.scale * loc, self.scale * (self.floor + positive_scale(raw))

    def features(self, x: Tensor) -> Tensor:
        """The standardized number, ``[*batch, 1]``, for values ``[*batch]``."""
        return ((x - self.center) / self.scale).unsqueeze(-1)
