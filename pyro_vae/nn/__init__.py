"""Networks to put inside likelihoods and posteriors. They broadcast over leading dimensions."""

from pyro_vae.nn.mlp import mlp

__all__ = ["mlp"]
