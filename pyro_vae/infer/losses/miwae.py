"""Between the ELBO and the importance-weighted bound."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp

__all__ = ["CIWAE", "MIWAE", "PIWAE"]


class MIWAE(LogWeightLoss):
    """The mean of several importance-weighted bounds (Rainforth et al. 2018, section 5).

    The gradient of the guide keeps its direction in the noise with more bounds, and loses it with more particles in
    each. (Another method of the same name is for missing data: that is :class:`~pyro_vae.likelihoods.Incomplete`.)

    Args:
        num_bounds: The number of bounds, M.
        num_particles: The number of draws for each datapoint in each of them, K.
    """

    def __init__(self, num_bounds: int, num_particles: int) -> None:
        self.num_bounds = check_count("num_bounds", num_bounds)
        super().__init__(self.num_bounds * check_count("num_particles", num_particles))

    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``."""
        return self._mean_of_bounds(particles.log_weights(particles.latents))

    def _mean_of_bounds(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(log_weights.unflatten(0, (self.num_bounds, -1)), dim=1).mean(0)


class PIWAE(MIWAE):
    """The bound of :class:`MIWAE` for the guide, that of all particles together for the model (Rainforth et al. 2018).

    Section 5 there. The value is that of the model's, the tighter one. The model is run a second time, to tell its
    gradient from the guide's.
    """

    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``."""
        log_posterior = particles.log_posterior(particles.latents)
        log_weights = particles.log_joint(particles.latents) - log_posterior
        of_model = particles.log_joint(particles.fixed) - log_posterior.detach()
        return log_mean_exp(of_model) + self._mean_of_bounds(log_weights) - self._mean_of_bounds(of_model)


class CIWAE(LogWeightLoss):
    """A part of the ELBO and a part of the bound of :class:`IWAE` (Rainforth et al. 2018, section 5).

    Args:
        elbo_share: The weight of the ELBO, beta there, from 0 to 1.
        num_particles: The number of draws for each datapoint.

    Raises:
        ValueError: If the weight is not from 0 to 1.
    """

    def __init__(self, elbo_share: float, num_particles: int) -> None:
        super().__init__(num_particles)
        if not 0 <= elbo_share <= 1:
            raise ValueError(f"elbo_share is {elbo_share!r}; expected a number from 0 to 1")
        self.elbo_share = elbo_share

    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``."""
        log_weights = particles.log_weights(particles.latents)
        return self.elbo_share * log_weights.mean(0) + (1 - self.elbo_share) * log_mean_exp(log_weights)
