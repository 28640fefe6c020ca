"""The uniform prior on the sphere."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import nn

from pyro_vae import distributions
from pyro_vae.checks import check_count
from pyro_vae.system.tracing import validation


class HypersphericalUniform(nn.Module):
    """p(z), uniform on the unit sphere with respect to surface area (Davidson et al. 2018, section 3).

    Use it with a posterior on the sphere, such as :class:`pyro_vae.posteriors.ProjectedNormal`.

    Args:
        latent_dim: The dimension of the space that contains the sphere, at least 2 (the circle).

    Raises:
        ValueError: If ``latent_dim`` is not an integer of at least 2.

    Example:
        >>> z = priors.HypersphericalUniform(3)().sample()
        >>> torch.allclose(z.norm(), torch.tensor(1.0))
        True
    """

    origin: torch.Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = check_count("latent_dim", latent_dim, least=2)
        self.register_buffer("origin", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Returns p(z), with event shape ``[latent]``."""
        return distributions.HypersphericalUniform(self.origin, validate_args=validation())
