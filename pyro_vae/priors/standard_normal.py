"""The standard normal prior."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import nn

from pyro_vae.checks import check_count
from pyro_vae.system.tracing import validation


class StandardNormal(nn.Module):
    """p(z) = N(0, I) (Kingma & Welling 2013, section 3).

    Args:
        latent_dim: The number of latent dimensions, at least 1.

    Raises:
        ValueError: If ``latent_dim`` is not a positive integer.

    Example:
        >>> priors.StandardNormal(2)().log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    loc: torch.Tensor
    scale: torch.Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = check_count("latent_dim", latent_dim)
        # Buffers, so that .to(device) and .to(dtype) move them; not saved, since nothing in them is learned.
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self) -> dist.TorchDistribution:
        """Returns p(z), with event shape ``[latent]``."""
        return dist.Normal(self.loc, self.scale, validate_args=validation()).to_event(1)
