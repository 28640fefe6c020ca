"""Counts that vary more than Poisson's."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae import distributions
from pyro_vae.likelihoods.dimensions import as_event, split_parameters
from pyro_vae.likelihoods.positive import as_positive

__all__ = ["HeterogeneousNegativeBinomial", "NegativeBinomial"]


class NegativeBinomial(nn.Module):
    """Independent counts of mean m(z) and variance m + m^2 / r, of one r for all datapoints (Lopez et al. 2018).

    r is the inverse dispersion. To learn one for each feature, as is usual for genes:
    ``NegativeBinomial(network, PositiveParameter(torch.ones(genes)))``.

    Data are counts 0, 1, 2, ... as floats.

    Args:
        network: Maps latents ``[*batch, latent]`` to the logs of means, ``[*batch, *event]``.
        inverse_dispersion: A positive number; or a module that takes nothing and returns positive numbers that
            broadcast with ``[*event]``, such as :class:`PositiveParameter`.

    Raises:
        ValueError: If the inverse dispersion is not a positive number or a module.
    """

    def __init__(self, network: nn.Module, inverse_dispersion: float | nn.Module) -> None:
        super().__init__()
        self.network = network
        self.inverse_dispersion = as_positive("inverse_dispersion", inverse_dispersion)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        log_r = self.inverse_dispersion().log()
        return as_event(distributions.NegativeBinomial(self.network(z), log_r, validate_args=False), z)


class HeterogeneousNegativeBinomial(nn.Module):
    """Independent counts as of :class:`NegativeBinomial`, each with an inverse dispersion of its own (Hilbe 2011).

    Data are counts 0, 1, 2, ... as floats.

    Args:
        network: Maps latents ``[*batch, latent]`` to ``[*batch, *event, 2]``: logs of means and of inverse dispersions.

    Raises:
        ValueError: If (when called) the last dimension is not of size 2.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        log_mean, log_r = split_parameters(
            "HeterogeneousNegativeBinomial", self.network(z), z, "log mean", "log inverse dispersion"
        )
        return as_event(distributions.NegativeBinomial(log_mean, log_r, validate_args=False), z)
