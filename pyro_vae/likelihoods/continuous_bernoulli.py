"""Grey pixels."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.likelihoods.dimensions import as_event

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(nn.Module):
    """Independent pixels from 0 to 1, each continuous Bernoulli (Loaiza-Ganem & Cunningham 2019, section 3).

    It is the Bernoulli's cross-entropy with the normalizing constant that makes it a density on grey values. Being a
    density, it may exceed 1: evidence in nats is not comparable with that of discrete pixels.

    Data are any values in [0, 1].

    Args:
        network: Maps latents ``[*batch, latent]`` to logits ``[*batch, *event]``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        return as_event(distributions.ContinuousBernoulli(self.network(z), validate_args=False), z)
