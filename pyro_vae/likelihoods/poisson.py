"""A likelihood for counts."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae import distributions
from pyro_vae.likelihoods.dimensions import as_event
from pyro_vae.nn.with_network import WithNetwork


class Poisson(WithNetwork):
    """Independent Poisson counts with log-rates from a network.

    Data are counts 0, 1, 2, ... as floats.

    Args:
        network: Maps latents ``[*batch, latent]`` to log-rates ``[*batch, *event]``.

    Example:
        >>> likelihood = likelihoods.Poisson(nn.mlp(2, [8], (5,)))
        >>> likelihood(torch.zeros(3, 2)).sample().shape
        torch.Size([3, 5])
    """

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        return as_event(distributions.Poisson(self.network(z), validate_args=False), z)
