"""Distributions as Pyro wants them."""

from pyro_vae.distributions.as_pyro import as_pyro

__all__ = ["as_pyro"]
