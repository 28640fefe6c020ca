"""A learned mixture of normals."""

from __future__ import annotations

import math

import torch
from pyro import distributions as dist
from torch import nn

from pyro_vae import distributions
from pyro_vae.checks import check_count
from pyro_vae.distributions.positive_scale import positive_scale
from pyro_vae.system.tracing import validation


class Mixture(nn.Module):
    """p(z) = sum over k of w_k N(loc_k, diag(scale_k^2)), with all parameters learned (Jiang et al. 2017, section 3.1).

    Initially the weights are equal, loc_k ~ N(0, I / 4) and scale_k^2 = 3 / 4: averaged over the random locations, the
    mixture is N(0, I), and with many components it is close to that.

    Args:
        latent_dim: The number of latent dimensions, at least 1.
        components: The number of components, at least 1.

    Raises:
        ValueError: If ``latent_dim`` or ``components`` is not a positive integer.

    Example:
        >>> priors.Mixture(2, components=10)().sample().shape
        torch.Size([2])
    """

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__()
        self.latent_dim = check_count("latent_dim", latent_dim)
        self.components = check_count("components", components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(0.5 * torch.randn(components, latent_dim))
        raw_scale = math.log(math.expm1(math.sqrt(0.75)))  # softplus maps it to sqrt(3 / 4)
        self.raw_scale = nn.Parameter(torch.full((components, latent_dim), raw_scale))

    def forward(self) -> dist.TorchDistribution:
        """Returns p(z), with event shape ``[latent]``."""
        components = dist.Normal(self.loc, positive_scale(self.raw_scale), validate_args=validation()).to_event(1)
        return distributions.Mixture(self.logits, components)
