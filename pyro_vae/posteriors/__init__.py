"""Amortized posteriors q(z | x): modules that take data and return a distribution over latent vectors.

A posterior is any ``nn.Module`` for which ``posterior(x)``, with x ``[*batch, *event]``, returns a distribution with
batch shape ``[*batch]`` and event shape ``[latent]``.
"""

from pyro_vae.posteriors.full_normal import FullNormal
from pyro_vae.posteriors.inverse_autoregressive import InverseAutoregressive
from pyro_vae.posteriors.linear_gaussian import LinearGaussian
from pyro_vae.posteriors.low_rank_normal import LowRankNormal
from pyro_vae.posteriors.neural_spline import NeuralSpline
from pyro_vae.posteriors.normal import Normal
from pyro_vae.posteriors.product_of_experts import ProductOfExperts
from pyro_vae.posteriors.projected_normal import ProjectedNormal

__all__ = [
    "FullNormal",
    "InverseAutoregressive",
    "LinearGaussian",
    "LowRankNormal",
    "NeuralSpline",
    "Normal",
    "ProductOfExperts",
    "ProjectedNormal",
]
