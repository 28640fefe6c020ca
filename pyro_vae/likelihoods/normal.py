"""Real data with normal noise: its scale fixed, learned and shared, or different from pixel to pixel."""

from __future__ import annotations

from typing import Any

from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_vae.checks import check_positive
from pyro_vae.distributions.supports import FiniteReals
from pyro_vae.likelihoods.dimensions import as_event, split_parameters
from pyro_vae.likelihoods.positive import as_positive

__all__ = ["HeteroscedasticNormal", "Normal"]


class _Normal(dist.Normal):
    support: Any = FiniteReals()


class Normal(nn.Module):
    """Independent values N(loc(z), scale^2), of one scale for all datapoints (Kingma & Welling 2013, appendix C.2).

    With a fixed scale the log-likelihood is a squared error, weighted by 1 / (2 scale^2). A learned scale finds that
    weight by itself (Rybkin et al. 2021): ``Normal(network, PositiveParameter(1.0))``.

    Data are any finite real numbers.

    Args:
        network: Maps latents ``[*batch, latent]`` to locations ``[*batch, *event]``.
        scale: A positive number; or a module that takes nothing and returns positive scales that broadcast with
            ``[*event]``, such as :class:`PositiveParameter`, which has a floor for the reason given in
            :class:`HeteroscedasticNormal`.

    Raises:
        ValueError: If the scale is not a positive number or a module.
    """

    def __init__(self, network: nn.Module, scale: float | nn.Module) -> None:
        super().__init__()
        self.network = network
        self.scale = as_positive("scale", scale)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        return as_event(_Normal(self.network(z), self.scale(), validate_args=False), z)


class HeteroscedasticNormal(nn.Module):
    """Independent values N(loc(z), scale(z)^2), each with a scale of its own: floor + softplus(raw).

    The likelihood of normal noise is unbounded: where a network fits one value exactly, its density grows without
    limit as the scale falls, and training ends there (Mattei & Frellsen 2018, section 2). The floor bounds it. It
    should be the error with which data are known, in their units; 8-bit pixels divided by 255 are rounded with an
    error of standard deviation 1 / (255 sqrt(12)), which is 0.0011.

    Data are any finite real numbers.

    Args:
        network: Maps latents ``[*batch, latent]`` to ``[*batch, *event, 2]``: locations and raw scales.
        floor: The smallest scale.

    Raises:
        ValueError: If the floor is not positive, or (when called) the last dimension is not of size 2.
    """

    def __init__(self, network: nn.Module, floor: float = 1e-3) -> None:
        super().__init__()
        self.network = network
        self.floor = check_positive("floor", floor)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        loc, raw_scale = split_parameters("HeteroscedasticNormal", self.network(z), z, "loc", "raw scale")
        return as_event(_Normal(loc, self.floor + softplus(raw_scale), validate_args=False), z)
