"""Likelihoods by name, with their options.

To add one, write a dataclass here and add a line to the table. It is called with a function that makes a network from
latents to outputs of a given shape, and with the shape of one datapoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyro_vae

if TYPE_CHECKING:
    from torch.nn import Module

    Decoder = Callable[[Sequence[int]], Module]


@dataclass(frozen=True)
class _OfOneNetwork:
    """Makes the likelihood whose class has the same name, of one network and the options."""

    per_value: ClassVar[tuple[int, ...]] = ()  # outputs of the network for each value, if not one

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> Module:
        likelihood = getattr(pyro_vae.likelihoods, type(self).__name__)
        return likelihood(decoder((*event, *self.per_value)), *vars(self).values())


class Bernoulli(_OfOneNetwork):
    """Binary data, 0 and 1."""


class ContinuousBernoulli(_OfOneNetwork):
    """Data from 0 to 1 (Loaiza-Ganem & Cunningham 2019)."""


@dataclass(frozen=True)
class DiscretizedLogistic(_OfOneNetwork):
    """Data with discrete levels from 0 to 1, such as 8-bit pixels (Kingma et al. 2016)."""

    per_value = (2,)
    levels: int = 256
    """Number of levels: data are k / (levels - 1)."""


@dataclass(frozen=True)
class Normal:
    """Real data, with normal noise of one learned standard deviation (Rybkin et al. 2021)."""

    scale: float = 1.0
    """Initial standard deviation of the noise, in units of the data."""
    floor: float = 1e-3
    """Lower limit of the standard deviation, in units of the data."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> Module:
        return pyro_vae.likelihoods.Normal(
            decoder(event), pyro_vae.likelihoods.PositiveParameter(self.scale, self.floor)
        )


class HeteroscedasticNormal(_OfOneNetwork):
    """Real data, with normal noise whose standard deviation depends on z (Kingma & Welling 2013, appendix C.2)."""

    per_value = (2,)


@dataclass(frozen=True)
class Categorical:
    """Classes 0, 1, 2, ..."""

    classes: int = 256
    """Number of classes."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> Module:
        return pyro_vae.likelihoods.Categorical(decoder((*event, self.classes)))


class Poisson(_OfOneNetwork):
    """Counts whose variance is their mean."""


@dataclass(frozen=True)
class NegativeBinomial:
    """Overdispersed counts, with a learned dispersion for each feature."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> Module:
        return pyro_vae.likelihoods.NegativeBinomial(decoder(event), _dispersion(event))


class HeterogeneousNegativeBinomial(_OfOneNetwork):
    """Overdispersed counts, with a dispersion that depends on z."""

    per_value = (2,)


@dataclass(frozen=True)
class ZeroInflated:
    """Negative binomial counts with additional zeros (Lopez et al. 2018)."""

    def __call__(self, decoder: Decoder, event: Sequence[int]) -> Module:
        counts = pyro_vae.likelihoods.NegativeBinomial(decoder(event), _dispersion(event))
        return pyro_vae.likelihoods.ZeroInflated(counts, decoder(event))


def _dispersion(event: Sequence[int]) -> Module:
    import torch

    return pyro_vae.likelihoods.PositiveParameter(torch.ones(*event))


@dataclass(frozen=True)
class Columns:
    """The columns of a table, each of its own kind (Nazabal et al. 2020)."""

    def __call__(self, *_: Any) -> Module:
        raise ValueError("--likelihood columns is for tables; expected a file .csv, .tsv, .parquet, .feather or .xlsx")


LIKELIHOODS: dict[str, type] = {
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "columns": Columns,
    "continuous-bernoulli": ContinuousBernoulli,
    "discretized-logistic": DiscretizedLogistic,
    "heterogeneous-negative-binomial": HeterogeneousNegativeBinomial,
    "heteroscedastic-normal": HeteroscedasticNormal,
    "negative-binomial": NegativeBinomial,
    "normal": Normal,
    "poisson": Poisson,
    "zero-inflated": ZeroInflated,
}
