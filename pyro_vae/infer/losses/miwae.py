"""Objectives between the ELBO and the importance-weighted bound."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp


class MIWAE(LogWeightLoss):
    """The mean of several importance-weighted bounds (Rainforth et al. 2018, section 5).

    The signal-to-noise ratio of the guide's gradient grows with the number of bounds, and falls with the number of
    particles in each. (The MIWAE of Mattei & Frellsen 2019, for missing data, is a different method: see
    :class:`~pyro_vae.likelihoods.Incomplete`.)

    Args:
        num_bounds: The number of bounds, M.
        num_particles: The number of draws for each datapoint in each bound, K.

    Raises:
        ValueError: If a number is not a positive integer.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.MIWAE(4, num_particles=8))
        >>> loss = svi.step(x)
    """

    def __init__(self, num_bounds: int, num_particles: int) -> None:
        self.num_bounds = check_count("num_bounds", num_bounds)
        super().__init__(self.num_bounds * check_count("num_particles", num_particles))

    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""
        return self._mean_of_bounds(particles.log_weights(particles.latents))

    def _mean_of_bounds(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(log_weights.unflatten(0, (self.num_bounds, -1)), dim=1).mean(0)


class PIWAE(MIWAE):
    """The bound of :class:`MIWAE` for the guide, and of all particles together for the model (Rainforth et al. 2018).

    See section 5 of the paper. The value is the bound for the model, the tighter of the two. The model runs twice, to
    separate its gradient from that of the guide.

    Args:
        num_bounds: The number of bounds for the guide, M.
        num_particles: The number of draws for each datapoint in each bound, K.

    Raises:
        ValueError: If a number is not a positive integer.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.PIWAE(4, num_particles=8))
        >>> loss = svi.step(x)
    """

    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""
        log_posterior = particles.log_posterior(particles.latents)
        log_weights = particles.log_joint(particles.latents) - log_posterior
        of_model = particles.log_joint(particles.fixed) - log_posterior.detach()
        return log_mean_exp(of_model) + self._mean_of_bounds(log_weights) - self._mean_of_bounds(of_model)


class CIWAE(LogWeightLoss):
    """A weighted average of the ELBO and the bound of :class:`IWAE` (Rainforth et al. 2018, section 5).

    Args:
        elbo_share: The weight of the ELBO (beta in the paper), from 0 to 1.
        num_particles: The number of draws for each datapoint.

    Raises:
        ValueError: If ``elbo_share`` is not from 0 to 1, or ``num_particles`` not a positive integer.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.CIWAE(0.5, num_particles=8))
        >>> loss = svi.step(x)
    """

    def __init__(self, elbo_share: float, num_particles: int) -> None:
        super().__init__(num_particles)
        if not 0 <= elbo_share <= 1:
            raise ValueError(f"elbo_share is {elbo_share!r}; expected a number from 0 to 1")
        self.elbo_share = elbo_share

    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""
        log_weights = particles.log_weights(particles.latents)
        return self.elbo_share * log_weights.mean(0) + (1 - self.elbo_share) * log_mean_exp(log_weights)
