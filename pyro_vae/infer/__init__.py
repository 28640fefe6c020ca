"""Inference: steps of SVI on two programs, their losses, and the noise of gradients."""

from pyro_vae.distributions import kl_normals as kl_normals  # the import registers divergences, for any programs
from pyro_vae.infer import losses
from pyro_vae.infer.gradient_moments import GradientMoments
from pyro_vae.infer.gradient_noise import gradient_variance
from pyro_vae.infer.svi import SVI

__all__ = ["SVI", "GradientMoments", "gradient_variance", "losses"]
