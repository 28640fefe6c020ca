"""Rényi's family of bounds."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp

__all__ = ["Renyi"]


class Renyi(LogWeightLoss):
    """The variational Rényi bound, log(mean of w^(1 - alpha)) / (1 - alpha) (Li & Turner 2016, equations 4 and 6).

    It falls with alpha: 1 is the ELBO, 0 is :class:`IWAE`, and towards minus infinity the largest log-weight is all
    that counts. In the limit of many particles it is below log p(x) for a positive alpha, and above for a negative one;
    with few of them it is lower than in that limit for alpha < 1.

    Args:
        alpha: The order.
        num_particles: The number of draws for each datapoint, 2 or more for it to differ from the ELBO.

    Raises:
        ValueError: If the order is not a finite number.
    """

    def __init__(self, alpha: float, num_particles: int) -> None:
        super().__init__(num_particles)
        if not math.isfinite(alpha):
            raise ValueError(f"alpha is {alpha!r}; expected a finite number")
        self.alpha = alpha

    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``."""
        log_weights = particles.log_weights(particles.latents)
        power = 1 - self.alpha
        return log_mean_exp(power * log_weights) / power if power else log_weights.mean(0)
