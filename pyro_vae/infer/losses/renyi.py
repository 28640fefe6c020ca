"""The variational Rényi bounds."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp


class Renyi(LogWeightLoss):
    """The variational Rényi bound, log(mean of w^(1 - alpha)) / (1 - alpha) (Li & Turner 2016, equations 4 and 6).

    It decreases in alpha: alpha = 1 is the ELBO, 0 is :class:`IWAE`, and minus infinity the largest log-weight. In the
    limit of many particles it is a lower bound on log p(x) for positive alpha and an upper bound for negative alpha.
    With few particles and alpha < 1 it is lower than in that limit.

    Args:
        alpha: The order.
        num_particles: The number of draws for each datapoint; with 1 the bound is the ELBO.

    Raises:
        ValueError: If ``alpha`` is not a finite number, or ``num_particles`` not a positive integer.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.Renyi(0.5, num_particles=5))
        >>> loss = svi.step(x)
    """

    def __init__(self, alpha: float, num_particles: int) -> None:
        super().__init__(num_particles)
        if not math.isfinite(alpha):
            raise ValueError(f"alpha is {alpha!r}; expected a finite number")
        self.alpha = alpha

    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""
        log_weights = particles.log_weights(particles.latents)
        power = 1 - self.alpha
        return log_mean_exp(power * log_weights) / power if power else log_weights.mean(0)
