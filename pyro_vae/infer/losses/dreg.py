"""The importance-weighted bound with a gradient of the guide that has less noise."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp


class DReG(LogWeightLoss):
    """The bound of :class:`IWAE`, with the doubly reparameterized gradient of the guide (Tucker et al. 2018, eq. 8).

    The guide's gradient is the path derivative of each log-weight, times the square of its normalized weight; it has
    the same mean as the gradient of ``IWAE``. The model's gradient is that of ``IWAE``. With one particle it is
    :class:`StickingTheLanding`, where its cost is described.

    Args:
        num_particles: The number of draws for each datapoint; with 1 the bound is the ELBO.

    Raises:
        ValueError: If ``num_particles`` is not a positive integer.

    Example:
        >>> svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), losses.DReG(num_particles=5))
        >>> loss = svi.step(x)
    """

    def objective(self, particles: Particles) -> Tensor:
        """The objective in nats, ``[n]``, to be maximized."""
        normalized: Tensor

        def weigh_gradient(z: Tensor) -> Tensor:
            z = z.clone()
            if z.requires_grad:
                z.register_hook(lambda gradient: gradient * particles.broadcast(normalized, z))
            return z

        # log_mean_exp multiplies each gradient by its normalized weight once; the hook does so again for the guide.
        log_weights = particles.log_path_weights({name: weigh_gradient(z) for name, z in particles.latents.items()})
        normalized = torch.softmax(log_weights.detach(), 0)
        return log_mean_exp(log_weights)
