"""Likelihoods for real data: normal noise with a fixed, a learned or a varying scale."""

from __future__ import annotations

from typing import Any

from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_vae.checks import check_positive
from pyro_vae.distributions.supports import FiniteReals
from pyro_vae.likelihoods.dimensions import as_event, split_parameters
from pyro_vae.likelihoods.positive import as_positive


class _Normal(dist.Normal):
    support: Any = FiniteReals()


class Normal(nn.Module):
    """Independent values N(loc(z), scale^2), the same scale for all datapoints (Kingma & Welling 2013, appendix C.2).

    With a fixed scale the negative log-likelihood is the squared error times 1 / (2 scale^2), plus a constant. With a
    learned scale this weight is learned too (Rybkin et al. 2021): ``Normal(network, PositiveParameter(1.0))``.

    Data are any finite real numbers.

    Args:
        network: Maps latents ``[*batch, latent]`` to locations ``[*batch, *event]``.
        scale: A positive number; or a module that takes no input and returns positive scales that broadcast with
            ``[*event]``, such as :class:`PositiveParameter` (which has a floor, for the reason given in
            :class:`HeteroscedasticNormal`).

    Raises:
        ValueError: If the scale is neither a positive number nor a module.

    Example:
        >>> likelihood = likelihoods.Normal(nn.mlp(2, [8], (5,)), likelihoods.PositiveParameter(1.0))
        >>> likelihood(torch.zeros(3, 2)).log_prob(torch.zeros(3, 5)).shape
        torch.Size([3])
    """

    def __init__(self, network: nn.Module, scale: float | nn.Module) -> None:
        super().__init__()
        self.network = network
        self.scale = as_positive("scale", scale)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        return as_event(_Normal(self.network(z), self.scale(), validate_args=False), z)


class HeteroscedasticNormal(nn.Module):
    """Independent values N(loc(z), scale(z)^2), each with its own scale, floor + softplus(raw).

    A normal likelihood is unbounded: if the network fits a value exactly, the density grows without limit as the scale
    falls, and training diverges (Mattei & Frellsen 2018, section 2). The floor bounds it. Set it to the measurement
    error of the data, in their units; 8-bit pixels divided by 255 have a rounding error with standard deviation
    1 / (255 sqrt(12)) = 0.0011.

    Data are any finite real numbers.

    Args:
        network: Maps latents ``[*batch, latent]`` to ``[*batch, *event, 2]``: locations and raw scales.
        floor: The smallest scale.

    Raises:
        ValueError: If the floor is not a positive number; when called, if the last dimension is not of size 2.

    Example:
        >>> likelihood = likelihoods.HeteroscedasticNormal(nn.mlp(2, [8], (5, 2)))
        >>> bool((likelihood(torch.zeros(3, 2)).stddev >= 1e-3).all())
        True
    """

    def __init__(self, network: nn.Module, floor: float = 1e-3) -> None:
        super().__init__()
        self.network = network
        self.floor = check_positive("floor", floor)

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        """Returns p(x | z) of batch shape ``[*batch]`` and event shape ``[*event]``, for z ``[*batch, latent]``."""
        loc, raw_scale = split_parameters("HeteroscedasticNormal", self.network(z), z, "loc", "raw scale")
        return as_event(_Normal(loc, self.floor + softplus(raw_scale), validate_args=False), z)
