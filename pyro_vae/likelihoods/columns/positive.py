"""Columns of positive numbers."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.likelihoods.columns.real import Real


class Positive(Real):
    """Positive numbers with a log-normal distribution: their logarithm is a :class:`Real` number.

    Args:
        center: What is subtracted from the logarithm to standardize it, such as the mean of the logarithms.
        scale: What is divided by, such as their standard deviation.
        shared: Whether all datapoints have one scale, as in :class:`Real`.
        floor: The smallest standard deviation of the logarithm, in units of ``scale``.

    Raises:
        ValueError: If ``scale`` or ``floor`` is not positive.

    Example:
        >>> kind = likelihoods.columns.Positive(center=10.3, scale=1.1)  # of log(income)
        >>> kind.features(torch.tensor([1e4, 3e4])).shape
        torch.Size([2, 1])
    """

    def forward(self, parameters: Tensor) -> dist.TorchDistribution:
        """Returns the distribution of one value, for parameters ``[*batch, num_parameters]``."""
        return dist.LogNormal(*self.location_and_scale(parameters), validate_args=False)

    def features(self, x: Tensor) -> Tensor:
        """The standardized logarithm, ``[*batch, 1]``, for values ``[*batch]``."""
        return super().features(x.log())
