"""Likelihoods by name, with their options.

To add one, write a dataclass here and add a line to the table. It is called with a function that makes a network from
latents to outputs of a given shape, and with the shape of one datapoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from pyro_vae import likelihoods

__all__ = ["LIKELIHOODS"]

Decoder = Callable[[Sequence[int]], nn.Module]


@dataclass(frozen=True)
class Bernoulli:
    """Binary data, 0 and 1."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> nn.Module:
        return likelihoods.Bernoulli(decoder(event))


@dataclass(frozen=True)
class ContinuousBernoulli:
    """Data from 0 to 1 (Loaiza-Ganem & Cunningham 2019)."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> nn.Module:
        return likelihoods.ContinuousBernoulli(decoder(event))


@dataclass(frozen=True)
class DiscretizedLogistic:
    """Data with discrete levels from 0 to 1, such as 8-bit pixels (Kingma et al. 2016)."""

    levels: int = 256
    """Number of levels: data are k / (levels - 1)."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> nn.Module:
        return likelihoods.DiscretizedLogistic(decoder((*event, 2)), self.levels)


@dataclass(frozen=True)
class Normal:
    """Real data, with normal noise of one learned standard deviation (Rybkin et al. 2021)."""

    scale: float = 1.0
    """Initial standard deviation of the noise, in units of the data."""
    floor: float = 1e-3
    """Lower limit of the standard deviation, in units of the data."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> nn.Module:
        return likelihoods.Normal(decoder(event), likelihoods.PositiveParameter(self.scale, self.floor))


LIKELIHOODS: dict[str, type] = {
    "bernoulli": Bernoulli,
    "continuous-bernoulli": ContinuousBernoulli,
    "discretized-logistic": DiscretizedLogistic,
    "normal": Normal,
}
