"""Priors p(z): modules that take no input and return a distribution over one latent vector.

A prior is any ``nn.Module`` for which ``prior()`` returns a distribution with an empty batch shape and event shape
``[latent]``, such as an unconditional zuko flow. The data plate expands it over datapoints and particles.
"""

from pyro_vae.priors.hyperspherical_uniform import HypersphericalUniform
from pyro_vae.priors.laplace import Laplace
from pyro_vae.priors.masked_autoregressive_flow import MaskedAutoregressiveFlow
from pyro_vae.priors.mixture import Mixture
from pyro_vae.priors.standard_normal import StandardNormal
from pyro_vae.priors.vamp_prior import VampPrior

__all__ = ["HypersphericalUniform", "Laplace", "MaskedAutoregressiveFlow", "Mixture", "StandardNormal", "VampPrior"]
