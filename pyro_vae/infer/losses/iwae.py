"""The importance-weighted bound."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp


class IWAE(LogWeightLoss):
    """The log of the mean weight of k particles, a bound on log p(x) that tightens with k (Burda et al. 2015, eq. 8).

    With more particles, the signal-to-noise ratio of the guide's gradient falls (Rainforth et al. 2018). That of
    :class:`~pyro_vae.infer.losses.DReG` has less noise, and close to the posterior the ratio grows with k.

    Args:
        num_particles: The number of draws for each datapoint; with 1 the bound is the ELBO.

    Raises:
        ValueError: If ``num_particles`` is not a positive integer.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.IWAE(num_particles=5))
        >>> loss = svi.step(x)
    """

    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""
        return log_mean_exp(particles.log_weights(particles.latents))
