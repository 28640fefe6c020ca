"""Likelihoods p(x given z): modules that take latent vectors and return a distribution over data.

A likelihood is any ``nn.Module`` whose ``likelihood(z)``, for z ``[*batch, latent]`` with any leading dimensions,
returns a distribution with batch shape ``[*batch]`` and the event shape of one datapoint. What data it accepts is the
``support`` of that distribution: ``VAE.check`` tests data against it once, before any work is done.
"""

from __future__ import annotations

import warnings

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


class _Binary(constraints.Constraint):
    """0 and 1; what lies between passes, as it does in much of the literature, but not in silence."""

    def check(self, value: Tensor) -> Tensor:
        inside = constraints.unit_interval.check(value)
        if inside.all() and ((value != 0) & (value != 1)).any():
            warnings.warn(
                "x has grey values, for which a Bernoulli gives a cross-entropy and not a log-probability; "
                "binarize them (pyro_vae.data.binarize) where log p(x) is wanted",
                stacklevel=2,
            )
        return inside

    def __repr__(self) -> str:
        return "[0, 1]"


class _Pixels(dist.Bernoulli):
    support = _Binary()
