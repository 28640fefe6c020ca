"""A sparse prior."""

from __future__ import annotations

import math

import torch
from pyro import distributions as dist
from torch import nn

from pyro_vae.checks import check_count
from pyro_vae.system.tracing import validation


class Laplace(nn.Module):
    """p(z): independent Laplace distributions of mean 0 and variance 1 (Barello, Charles & Pillow 2018).

    It has the variance of :class:`StandardNormal`, so exchanging the two changes the shape of the prior (more mass near
    zero and in the tails) but not its scale. The KL divergence from a normal posterior with a diagonal covariance has a
    closed form.

    Args:
        latent_dim: The number of latent dimensions, at least 1.

    Raises:
        ValueError: If ``latent_dim`` is not a positive integer.

    Example:
        >>> priors.Laplace(2)().variance
        tensor([1.0000, 1.0000])
    """

    loc: torch.Tensor
    scale: torch.Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = check_count("latent_dim", latent_dim)
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.full((latent_dim,), math.sqrt(0.5)), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Returns p(z), with event shape ``[latent]``."""
        return dist.Laplace(self.loc, self.scale, validate_args=validation()).to_event(1)
