"""Likelihoods by name: their options, and the likelihoods made of them.

A likelihood of one's own here is a dataclass and a line in the table. It is called with a function that makes a network
from latents to outputs of a shape, and with the shape of one datapoint.
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
    """Data of 0 and 1."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> nn.Module:
        return likelihoods.Bernoulli(decoder(event))


@dataclass(frozen=True)
class ContinuousBernoulli:
    """Data from 0 to 1 (Loaiza-Ganem & Cunningham 2019)."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> nn.Module:
        return likelihoods.ContinuousBernoulli(decoder(event))


@dataclass(frozen=True)
class DiscretizedLogistic:
    """Data of levels from 0 to 1, as 8-bit pixels (Kingma et al. 2016)."""

    levels: int = 256
    """Number of levels: data are k / (levels - 1)."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> nn.Module:
        return likelihoods.DiscretizedLogistic(decoder((*event, 2)), self.levels)


@dataclass(frozen=True)
class Normal:
    """Real data with normal noise of one learned scale (Rybkin et al. 2021)."""

    scale: float = 1.0
    """Standard deviation of the noise to begin with, in units of the data."""
    floor: float = 1e-3
    """What it cannot fall below, in units of the data."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> nn.Module:
        return likelihoods.Normal(decoder(event), likelihoods.PositiveParameter(self.scale, self.floor))


LIKELIHOODS: dict[str, type] = {
    "bernoulli": Bernoulli,
    "continuous-bernoulli": ContinuousBernoulli,
    "discretized-logistic": DiscretizedLogistic,
    "normal": Normal,
}
