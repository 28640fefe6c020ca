"""The importance-weighted bound."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp

__all__ = ["IWAE"]


class IWAE(LogWeightLoss):
    """The log of the mean weight of k particles, a bound on log p(x) that tightens with k (Burda et al. 2015, eq. 8).

    Its gradient with respect to the guide gets worse with k, relative to its noise (Rainforth et al. 2018); that of
    :class:`~pyro_vae.infer.losses.DReG` has less noise, and close to the posterior gets better with k.
    """

    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``."""
        return log_mean_exp(particles.log_weights(particles.latents))
