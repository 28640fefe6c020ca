"""Priors p(z): modules that take nothing and return a distribution over one latent vector.

A prior is any ``nn.Module`` whose ``prior()`` returns a distribution with an empty batch shape and an event shape
``[latent]``. A zuko flow is one as it stands. The data plate expands it over datapoints and particles.
"""

from pyro_vae.priors.standard_normal import StandardNormal

__all__ = ["StandardNormal"]
