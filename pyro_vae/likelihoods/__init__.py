"""Likelihoods p(x given z): modules that take latent vectors and return a distribution over data.

A likelihood is any ``nn.Module`` whose ``likelihood(z)``, for z ``[*batch, latent]`` with any leading dimensions,
returns a distribution with batch shape ``[*batch]`` and the event shape of one datapoint. What data it accepts is the
``support`` of that distribution: ``VAE.check`` tests data against it once, before any work is done.
"""

from pyro_vae.likelihoods.bernoulli import Bernoulli

__all__ = ["Bernoulli"]
