"""A normal posterior with a diagonal covariance."""

from __future__ import annotations

from pyro import distributions as dist
from torch import Tensor

from pyro_vae.distributions.positive_scale import positive_scale
from pyro_vae.nn.with_network import WithNetwork
from pyro_vae.system.tracing import validation


class Normal(WithNetwork):
    """q(z | x) = N(loc(x), diag(scale(x)^2)) (Kingma & Welling 2013, equation 9).

    Args:
        network: Maps data ``[*batch, *event]`` to ``[*batch, 2 * latent]``: the locations, then the raw scales, which
            go through ``pyro_vae.distributions.positive_scale``.

    Example:
        >>> posterior = posteriors.Normal(nn.mlp((1, 4, 4), [8], 4))
        >>> posterior(x).batch_shape, posterior(x).event_shape
        (torch.Size([8]), torch.Size([2]))
    """

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Returns q(z | x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``."""
        loc, raw_scale = self.network(x).chunk(2, dim=-1)
        return dist.Normal(loc, positive_scale(raw_scale), validate_args=validation()).to_event(1)
