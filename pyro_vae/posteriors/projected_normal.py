"""A posterior on the sphere."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae import distributions
from pyro_vae.nn.with_network import WithNetwork
from pyro_vae.system.tracing import validation


class ProjectedNormal(WithNetwork):
    """q(z | x): the direction of a draw from N(mu(x), I), a point on the unit sphere (Pukkila & Rao 1988).

    Use it with a prior on the sphere, such as :class:`pyro_vae.priors.HypersphericalUniform`. The norm of mu is the
    concentration. Unlike the von Mises-Fisher distribution (Davidson et al. 2018), it is reparameterized without
    rejection in every dimension. The codes of ``VAE.encode`` are the mean directions mu / norm(mu).

    In two dimensions the variance of its gradients is infinite (it diverges logarithmically), since a draw from
    N(mu, I) may be close to zero. This matters if mu is small.

    Args:
        network: Maps data ``[*batch, *event]`` to mu, ``[*batch, latent]``.

    Example:
        >>> posterior = posteriors.ProjectedNormal(nn.mlp((1, 4, 4), [8], 3))
        >>> torch.allclose(posterior(x).sample().norm(dim=-1), torch.ones(8))
        True
    """

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Returns q(z | x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``."""
        return distributions.ProjectedNormal(self.network(x), validate_args=validation())
