"""Likelihoods for overdispersed counts."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.likelihoods.dimensions import as_event, split_parameters
from pyro_vae.likelihoods.positive import as_positive
from pyro_vae.nn.with_network import WithNetwork


class NegativeBinomial(WithNetwork):
    """Independent counts with mean m(z) and variance m + m^2 / r, the same r for all datapoints (Lopez et al. 2018).

    r is the inverse dispersion. To learn one for each feature, as is usual for genes, use
    ``NegativeBinomial(network, PositiveParameter(torch.ones(genes)))``.

    Data are counts 0, 1, 2, ... as floats.

    Args:
        network: Maps latents ``[*batch, latent]`` to log-means ``[*batch, *event]``.
        inverse_dispersion: A positive number; or a module that takes no input and returns positive numbers that
            broadcast with ``[*event]``, such as :class:`PositiveParameter`.

    Raises:
        ValueError: If the inverse dispersion is neither a positive number nor a module.

    Example:
        >>> inverse_dispersion = likelihoods.PositiveParameter(torch.ones(5))
        >>> likelihood = likelihoods.NegativeBinomial(nn.mlp(2, [8], (5,)), inverse_dispersion)
        >>> likelihood(torch.zeros(3, 2)).sample().shape
        torch.Size([3, 5])
    """

    def __init__(self, network: nn.Module, inverse_dispersion: float | nn.Module) -> None:
        super().__init__(network)
        self.inverse_dispersion = as_positive("inverse_dispersion", inverse_dispersion)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        log_r = self.inverse_dispersion().log()
        return as_event(distributions.NegativeBinomial(self.network(z), log_r, validate_args=False), z)


class HeterogeneousNegativeBinomial(WithNetwork):
    """Independent counts as in :class:`NegativeBinomial`, with an inverse dispersion that depends on z (Hilbe 2011).

    Data are counts 0, 1, 2, ... as floats.

    Args:
        network: Maps latents ``[*batch, latent]`` to ``[*batch, *event, 2]``: log-means and the logs of inverse
            dispersions.

    Raises:
        ValueError: When called, if the last dimension is not of size 2.

    Example:
        >>> likelihood = likelihoods.HeterogeneousNegativeBinomial(nn.mlp(2, [8], (5, 2)))
        >>> likelihood(torch.zeros(3, 2)).sample().shape
        torch.Size([3, 5])
    """

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        log_mean, log_r = split_parameters(
            "HeterogeneousNegativeBinomial", self.network(z), z, "log mean", "log inverse dispersion"
        )
        return as_event(distributions.NegativeBinomial(log_mean, log_r, validate_args=False), z)
