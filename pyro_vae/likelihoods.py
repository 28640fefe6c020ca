"""Likelihoods p(x given z): modules that take latent vectors and return a distribution over data.

A likelihood is any ``nn.Module`` whose ``likelihood(z)``, for z ``[*batch, latent]`` with any leading dimensions,
returns a distribution with batch shape ``[*batch]`` and the event shape of one datapoint. What data it accepts is the
``support`` of that distribution: ``VAE.check`` tests data against it once, before any work is done.
"""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["Bernoulli"]


class Bernoulli(nn.Module):
    """Independent pixels, each Bernoulli with logits from a network (Kingma & Welling 2013, appendix C.1).

    Args:
        network: Maps latents ``[*batch, latent]`` to logits ``[*batch, *event]``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x given z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        logits = self.network(z)
        return _Pixels(logits=logits, validate_args=False).to_event(logits.ndim - (z.ndim - 1))


class _Pixels(dist.Bernoulli):
    # Grey pixels are accepted as they are in the literature (the log-density is then a cross-entropy, linear in x).
    support = constraints.unit_interval
