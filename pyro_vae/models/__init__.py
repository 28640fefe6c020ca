"""Pairs of Pyro programs made of parts: model and guide."""

from pyro_vae.models.conditional import ConditionalVAE
from pyro_vae.models.conditional_posterior import ConditionalPosterior
from pyro_vae.models.hierarchical import BottomUp, HierarchicalVAE, TopDown
from pyro_vae.models.semi_supervised import SemiSupervisedVAE
from pyro_vae.models.vae import VAE

__all__ = [
    "VAE",
    "BottomUp",
    "ConditionalPosterior",
    "ConditionalVAE",
    "HierarchicalVAE",
    "SemiSupervisedVAE",
    "TopDown",
]
