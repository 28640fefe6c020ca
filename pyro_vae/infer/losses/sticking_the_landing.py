"""The ELBO with a gradient that has no noise where q is the posterior."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles

__all__ = ["StickingTheLanding"]


class StickingTheLanding(LogWeightLoss):
    """The ELBO, with the path derivative as the gradient with respect to the guide (Roeder et al. 2017, section 3).

    What is left out, the gradient of log q at given draws, has mean zero, and the rest vanishes for every single draw
    where q is the posterior. It takes log q once more, at draws from elsewhere, which an inverse autoregressive flow
    has to be inverted for; and a second pass through a guide with several sites.
    """

    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``."""
        return particles.log_path_weights(particles.latents).mean(0)
