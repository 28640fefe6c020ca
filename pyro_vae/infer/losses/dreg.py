"""The importance-weighted bound with a gradient whose noise does not drown it."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.infer.losses.log_weight_loss import LogWeightLoss
from pyro_vae.infer.losses.particles import Particles
from pyro_vae.weights import log_mean_exp

__all__ = ["DReG"]


class DReG(LogWeightLoss):
    """The bound of :class:`IWAE`, with the doubly reparameterized gradient of the guide (Tucker et al. 2018, eq. 8).

    That is the path derivative of each log-weight, times the square of its share in the sum of weights; it has the same
    mean as the gradient of ``IWAE``. The model's gradient is the same. What it costs is said at
    :class:`StickingTheLanding`, which it is for one particle.
    """

    def objective(self, particles: Particles) -> Tensor:
        """What is maximized, ``[n]``."""
        shares: Tensor

        def weigh_gradient(z: Tensor) -> Tensor:
            z = z.clone()
            if z.requires_grad:
                z.register_hook(lambda gradient: gradient * particles.broadcast(shares, z))
            return z

        # The log of a mean multiplies each gradient by its share once, the hook again, on the way to the guide.
        log_weights = particles.log_path_weights({name: weigh_gradient(z) for name, z in particles.latents.items()})
        shares = torch.softmax(log_weights.detach(), 0)
        return log_mean_exp(log_weights)
