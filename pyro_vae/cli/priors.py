"""Priors by name, with their options.

To add one, write a dataclass here and add a line to the table. It is called with the latent dimension, the posterior
and the training data ``[n, *event]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro_vae

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass(frozen=True)
class _OfOptions:
    """Makes the prior whose class has the same name, of the latent dimension and the options."""

    def __call__(self, latent_dim: int, *_: Any) -> Module:
        return getattr(pyro_vae.priors, type(self).__name__)(latent_dim, *vars(self).values())


class StandardNormal(_OfOptions):
    """Standard normal, N(0, I)."""


class Laplace(_OfOptions):
    """Independent Laplace distributions of variance 1."""


@dataclass(frozen=True)
class Mixture(_OfOptions):
    """Learned mixture of diagonal normals."""

    components: int = 100
    """Number of mixture components."""


@dataclass(frozen=True)
class Vamp:
    """Mixture of the posterior at learned pseudo-inputs (Tomczak & Welling 2018)."""

    components: int = 500
    """Number of pseudo-inputs, which are initialized with random training data."""

    def __call__(self, latent_dim: int, posterior: Module, train: Tensor) -> Module:  # noqa: ARG002
        if not 1 <= self.components <= len(train):
            raise ValueError(
                f"--prior.components is {self.components}; expected from 1 to {len(train)}, the number of training data"
            )
        import torch

        rows = train[torch.randperm(len(train))]
        # A parameter cannot be missing: in gaps, it begins at the value of the first of the rows that has one there.
        first = rows.gather(0, (~rows.isnan()).byte().argmax(0, keepdim=True)).nan_to_num(0.0)
        chosen = rows[: self.components]
        return pyro_vae.priors.VampPrior(posterior, torch.where(chosen.isnan(), first, chosen))


@dataclass(frozen=True)
class MaskedAutoregressiveFlow(_OfOptions):
    """Masked autoregressive flow (Papamakarios et al. 2017)."""

    transforms: int = 3
    """Number of autoregressive transforms."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the hidden layers of each transform's network."""


class HypersphericalUniform(_OfOptions):
    """Uniform on the unit sphere (Davidson et al. 2018), for --posterior projected-normal."""


PRIORS: dict[str, type] = {
    "standard-normal": StandardNormal,
    "mixture": Mixture,
    "vamp": Vamp,
    "flow": MaskedAutoregressiveFlow,
    "laplace": Laplace,
    "hyperspherical": HypersphericalUniform,
}
