"""The ELBO with a gradient that has no variance when q is the exact posterior."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles


class StickingTheLanding(LogWeightLoss):
    """The ELBO, with the path derivative as the gradient with respect to the guide (Roeder et al. 2017, section 3).

    The other term, the score function, has mean zero and is left out. The path derivative is zero for every single draw
    if q is the exact posterior. The cost is one more evaluation of log q at given draws, for which an inverse
    autoregressive flow must be inverted, and which takes a second pass through a guide with several sites.

    Args:
        num_particles: The number of draws for each datapoint.

    Raises:
        ValueError: If ``num_particles`` is not a positive integer.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.StickingTheLanding())
        >>> loss = svi.step(x)
    """

    def __init__(self, num_particles: int = 1) -> None:
        super().__init__(num_particles)

    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""
        return particles.log_path_weights(particles.latents).mean(0)
