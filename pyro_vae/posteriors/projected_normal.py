"""A posterior on the sphere."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae import distributions

__all__ = ["ProjectedNormal"]


class ProjectedNormal(nn.Module):
    """q(z | x): the direction of a draw from N(mu(x), I), on the unit sphere.

    It goes with a prior on the sphere, such as :class:`pyro_vae.priors.HypersphericalUniform`. The norm of mu is the
    concentration. Unlike von Mises-Fisher (Davidson et al. 2018), it is reparameterized in every dimension without
    rejection. The codes that ``VAE.encode`` gives are the mean directions mu / norm(mu).

    In two dimensions the variance of its gradients is infinite, if only logarithmically so: a draw from N(mu, I) may
    fall close to zero. It matters where mu is small.

    Args:
        network: Maps data ``[*batch, *event]`` to mu, ``[*batch, latent]``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Returns q(z | x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``."""
        return distributions.ProjectedNormal(self.network(x))
