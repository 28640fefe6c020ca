"""Reweighted wake-sleep, without sleep."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp

__all__ = ["WakeWake"]


class WakeWake(LogWeightLoss):
    """Reweighted wake-sleep with the wake phase for both (Bornschein & Bengio 2015, section 2; Le et al. 2019).

    The model maximizes the bound of :class:`IWAE`, which is the value; the guide maximizes log q at draws weighted to
    be from the posterior, and so covers it. No gradient goes through draws: latents may be discrete. Pyro's own class,
    ``ReweightedWakeSleep``, is the same for one datapoint, and can sleep too; but of a batch it weighs all latents
    together, so that one draw counts and the others do not. Here each datapoint has weights of its own.
    """

    through_draws = False

    def __init__(self, num_particles: int) -> None:
        super().__init__(num_particles)
        if num_particles < 2:
            raise ValueError(f"num_particles is {num_particles!r}; expected at least 2, to weigh one by the others")

    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``."""
        log_posterior = particles.log_posterior(particles.fixed)
        log_weights = particles.log_joint(particles.fixed) - log_posterior.detach()
        of_guide = (torch.softmax(log_weights.detach(), 0) * log_posterior).sum(0)
        return log_mean_exp(log_weights) + of_guide - of_guide.detach()
