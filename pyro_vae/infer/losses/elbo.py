"""The evidence lower bound, with a sampled KL."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles

__all__ = ["ELBO"]


class ELBO(LogWeightLoss):
    """The mean log-weight: log p(x, z) - log q(z | x) (Kingma & Welling 2013, equation 6).

    The same as Pyro's ``Trace_ELBO`` with ``vectorize_particles``; ``TraceMeanField_ELBO`` has the KL term in closed
    form where there is one (equation 7).
    """

    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``."""
        return particles.log_weights(particles.latents).mean(0)
