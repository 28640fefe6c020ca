"""Distributions that torch and Pyro lack, or compute less accurately."""

from pyro_vae.distributions import kl_normals as kl_normals  # the import registers the divergences
from pyro_vae.distributions.columnwise import Columnwise
from pyro_vae.distributions.continuous_bernoulli import ContinuousBernoulli
from pyro_vae.distributions.conversion import as_pyro
from pyro_vae.distributions.discretized_logistic import DiscretizedLogistic
from pyro_vae.distributions.hypersphere import HypersphericalUniform
from pyro_vae.distributions.mixture import Mixture
from pyro_vae.distributions.negative_binomial import NegativeBinomial
from pyro_vae.distributions.poisson import Poisson
from pyro_vae.distributions.projected_normal import ProjectedNormal

__all__ = [
    "Columnwise",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "HypersphericalUniform",
    "Mixture",
    "NegativeBinomial",
    "Poisson",
    "ProjectedNormal",
    "as_pyro",
]
