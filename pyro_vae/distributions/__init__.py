"""Distributions as Pyro wants them."""

from pyro_vae.distributions import kl_normals as kl_normals  # the divergences are registered by the import
from pyro_vae.distributions.as_pyro import as_pyro

__all__ = ["as_pyro"]
