"""Posteriors q(z given x), amortized: modules that take data and return a distribution over latent vectors.

A posterior is any ``nn.Module`` whose ``posterior(x)``, for x ``[*batch, *event]``, returns a distribution with batch
shape ``[*batch]`` and event shape ``[latent]``.
"""

from pyro_vae.posteriors.normal import Normal

__all__ = ["Normal"]
