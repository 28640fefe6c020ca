"""A likelihood for values in [0, 1]."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae import distributions
from pyro_vae.likelihoods.dimensions import as_event
from pyro_vae.nn.with_network import WithNetwork


class ContinuousBernoulli(WithNetwork):
    """Independent continuous Bernoulli values in [0, 1] (Loaiza-Ganem & Cunningham 2019, section 3).

    It is the exponential of the negative Bernoulli cross-entropy, normalized to a density on [0, 1]. A density may
    exceed 1, so log p(x) is not comparable with that of a likelihood for discrete pixels.

    Data are any values in [0, 1].

    Args:
        network: Maps latents ``[*batch, latent]`` to logits ``[*batch, *event]``.

    Example:
        >>> likelihood = likelihoods.ContinuousBernoulli(nn.mlp(2, [8], (1, 4, 4)))
        >>> likelihood(torch.zeros(8, 2)).log_prob(torch.rand(8, 1, 4, 4)).shape
        torch.Size([8])
    """

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        return as_event(distributions.ContinuousBernoulli(self.network(z), validate_args=False), z)
