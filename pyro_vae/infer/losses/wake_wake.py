"""Reweighted wake-sleep without a sleep phase."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp


class WakeWake(LogWeightLoss):
    """Reweighted wake-sleep with two wake phases and no sleep (Bornschein & Bengio 2015, section 2; Le et al. 2019).

    The model maximizes the bound of :class:`IWAE`, which is the value of the loss up to its sign. The guide maximizes
    log q at draws weighted by their importance weights, that is, minimizes KL(p(z | x) || q). No gradient goes through
    the draws, so the latents may be discrete.

    Pyro's ``ReweightedWakeSleep`` is the same for a single datapoint, and has a sleep phase too. For a batch it weights
    the latents of all datapoints together, so that one draw dominates; here each datapoint has its own weights.

    Args:
        num_particles: The number of draws for each datapoint, at least 2.

    Raises:
        ValueError: If ``num_particles`` is not an integer of at least 2.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.WakeWake(num_particles=5))
        >>> loss = svi.step(x)
    """

    through_draws = False

    def __init__(self, num_particles: int) -> None:
        super().__init__(check_count("num_particles", num_particles, least=2))

    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""
        log_posterior = particles.log_posterior(particles.fixed)
        log_weights = particles.log_joint(particles.fixed) - log_posterior.detach()
        of_guide = (torch.softmax(log_weights.detach(), 0) * log_posterior).sum(0)
        return log_mean_exp(log_weights) + of_guide - of_guide.detach()
