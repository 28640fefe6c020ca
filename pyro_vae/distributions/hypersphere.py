"""The uniform distribution on the sphere."""

from __future__ import annotations

import math

import torch
from pyro import distributions as dist
from pyro.distributions import constraints
from torch import Tensor

from pyro_vae.distributions.unit_vectors import unit_vectors


class HypersphericalUniform(dist.TorchDistribution):
    """The uniform distribution on the unit sphere in d dimensions (Davidson et al. 2018, section 3).

    Args:
        like: A tensor ``[*batch, d]`` with the shape, dtype and device that draws should have.
        validate_args: Whether to check values; by default Pyro's setting.

    Example:
        >>> circle = distributions.HypersphericalUniform(torch.zeros(2))
        >>> circle.log_prob(circle.sample())  # -log(2 pi)
        tensor(-1.8379)
    """

    arg_constraints = {}  # noqa: RUF012 (torch declares it so)
    support = constraints.sphere
    has_rsample = True

    def __init__(self, like: Tensor, validate_args: bool | None = None) -> None:
        self._like = like
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The center of the sphere, zeros ``[*batch, d]``."""
        return torch.zeros_like(self._like)

    @property
    def variance(self) -> Tensor:
        """The variance of each coordinate, 1 / d, ``[*batch, d]``."""
        return torch.full_like(self._like, 1 / self.event_shape[0])

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draws unit vectors, ``[*sample_shape, *batch, d]``."""
        shape = self._extended_shape(sample_shape)
        return unit_vectors(torch.randn(shape, dtype=self._like.dtype, device=self._like.device))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-densities with respect to surface area in nats, ``[*batch]``, at unit vectors ``[*batch, d]``."""
        if self._validate_args:
            self._validate_sample(value)
        dim = self.event_shape[0]
        log_area = math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)
        return -log_area + torch.zeros_like(value + self._like).sum(-1)
