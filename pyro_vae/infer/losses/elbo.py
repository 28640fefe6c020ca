"""The evidence lower bound with the KL term estimated from draws."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles


class ELBO(LogWeightLoss):
    """The mean of the log-weights log p(x, z) - log q(z | x) (Kingma & Welling 2013, equation 6).

    The same as Pyro's ``Trace_ELBO`` with ``vectorize_particles``. Pyro's ``TraceMeanField_ELBO`` uses the closed form
    of the KL term if there is one (equation 7).

    Args:
        num_particles: The number of draws for each datapoint.

    Raises:
        ValueError: If ``num_particles`` is not a positive integer.

    Example:
        >>> losses.ELBO(num_particles=10)(vae.model, vae.guide, x).shape
        torch.Size([])
    """

    def __init__(self, num_particles: int = 1) -> None:
        super().__init__(num_particles)

    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""
        return particles.log_weights(particles.latents).mean(0)
