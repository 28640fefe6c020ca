"""An upper bound on the evidence."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.checks import check_positive
from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp


class CUBO(LogWeightLoss):
    """The upper bound log(mean of w^order) / order on log p(x), to be minimized (Dieng et al. 2017, equation 2).

    With order 2 it exceeds log p(x) by log(1 + chi^2(posterior || q)) / 2. It is an upper bound in the limit of many
    particles; with few particles it is lower on average. Only the guide is trained, since the model would learn to make
    the data less probable; this takes a second run of the model.

    Args:
        num_particles: The number of draws for each datapoint.
        order: The order of the bound, at least 1 for an upper bound.

    Raises:
        ValueError: If ``num_particles`` is not a positive integer or ``order`` not a positive number.

    Example:
        >>> upper, lower = losses.CUBO(200), losses.ELBO(200)
        >>> bool(upper(vae.model, vae.guide, x) > -lower(vae.model, vae.guide, x))
        True
    """

    def __init__(self, num_particles: int, order: float = 2.0) -> None:
        super().__init__(num_particles)
        self.order = check_positive("order", order)

    def objective(self, particles: Particles) -> Tensor:
        """The negative of the bound in nats, ``[n]``, to be maximized."""
        log_posterior = particles.log_posterior(particles.latents)
        bound = self._bound(particles.log_joint(particles.latents) - log_posterior)
        of_model = self._bound(particles.log_joint(particles.fixed) - log_posterior.detach())
        return -(bound - of_model + of_model.detach())

    def _bound(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(self.order * log_weights) / self.order
