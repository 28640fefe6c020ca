"""Posteriors by name, with their options.

To add one, write a dataclass here and add a line to the table. It is called with a function that makes a network from
data to a given number of outputs, and with the latent dimension. A product of experts has no such network: it is called
with the features of the data, and their number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyro_vae

if TYPE_CHECKING:
    from torch.nn import Module

    Encoder = Callable[[int], Module]


@dataclass(frozen=True)
class Normal:
    """Normal with a diagonal covariance."""

    def __call__(self, encoder: Encoder, latent_dim: int) -> Module:
        return pyro_vae.posteriors.Normal(encoder(2 * latent_dim))


@dataclass(frozen=True)
class FullNormal:
    """Normal with a full covariance."""

    def __call__(self, encoder: Encoder, latent_dim: int) -> Module:
        return pyro_vae.posteriors.FullNormal(encoder(latent_dim * (latent_dim + 3) // 2))


@dataclass(frozen=True)
class LowRankNormal:
    """Normal with a low-rank plus diagonal covariance."""

    rank: int = 5
    """Rank of the low-rank part of the covariance."""

    def __call__(self, encoder: Encoder, latent_dim: int) -> Module:
        return pyro_vae.posteriors.LowRankNormal(encoder(latent_dim * (2 + self.rank)), self.rank)


@dataclass(frozen=True)
class InverseAutoregressive:
    """Inverse autoregressive flow (Kingma et al. 2016)."""

    transforms: int = 2
    """Number of autoregressive transforms."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of each transform's network."""
    context: int = 64
    """Number of features of the data that each of these networks receives."""

    def __call__(self, encoder: Encoder, latent_dim: int) -> Module:
        network = encoder(2 * latent_dim + self.context)
        return pyro_vae.posteriors.InverseAutoregressive(
            network, latent_dim, self.context, self.transforms, self.hidden
        )


@dataclass(frozen=True)
class NeuralSpline(InverseAutoregressive):
    """Flow of monotonic splines (Durkan et al. 2019)."""

    bins: int = 8
    """Number of bins of each spline."""

    def __call__(self, encoder: Encoder, latent_dim: int) -> Module:
        network = encoder(2 * latent_dim + self.context)
        return pyro_vae.posteriors.NeuralSpline(
            network, latent_dim, self.context, self.transforms, self.hidden, self.bins
        )


@dataclass(frozen=True)
class ProjectedNormal:
    """Normal, projected onto the unit sphere, for --prior hyperspherical."""

    def __call__(self, encoder: Encoder, latent_dim: int) -> Module:
        return pyro_vae.posteriors.ProjectedNormal(encoder(latent_dim))


@dataclass(frozen=True)
class ProductOfExperts:
    """Normal, a product of one factor for each observed value, for missing values (Wu & Goodman 2018); no network."""

    def __call__(self, features: tuple[Module, int], latent_dim: int) -> Module:
        return pyro_vae.posteriors.ProductOfExperts(*features, latent_dim)


POSTERIORS: dict[str, type] = {
    "normal": Normal,
    "full-normal": FullNormal,
    "low-rank": LowRankNormal,
    "iaf": InverseAutoregressive,
    "spline": NeuralSpline,
    "product-of-experts": ProductOfExperts,
    "projected-normal": ProjectedNormal,
}
