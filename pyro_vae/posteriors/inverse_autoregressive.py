"""An inverse autoregressive flow."""

from __future__ import annotations

from collections.abc import Sequence

from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.distributions.positive_scale import positive_scale
from pyro_vae.distributions.zuko_import import zuko
from pyro_vae.posteriors.autoregressive import autoregressive_transforms, split_outputs
from pyro_vae.system.tracing import validation


class InverseAutoregressive(nn.Module):
    """Inverse autoregressive flow: z_0 ~ N(loc(x), diag(scale(x)^2)), then z_t = mu_t + sigma_t z_(t-1).

    The network of step t computes ``mu_t[i]`` and ``sigma_t[i]`` from ``z_(t-1)[:i]`` and the context of x (Kingma et
    al. 2016, equation 10 and algorithm 1); every second step reverses the order of the dimensions. In the paper's
    equations 12 to 14 sigma_t is a sigmoid gate. Here it is zuko's affine transform, the exponential of a number softly
    bounded by +-log(1000), which is as stable and starts as the identity.

    Drawing z and computing its density takes one pass through each network. The density of any other z takes
    ``latent_dim`` passes through each.

    Args:
        network: Maps data ``[*batch, *event]`` to ``[*batch, 2 * latent_dim + context_dim]``: the locations, the raw
            scales (as in :class:`~pyro_vae.posteriors.Normal`), and the context.
        latent_dim: The number of latent dimensions, at least 1.
        context_dim: The number of context dimensions, at least 1.
        transforms: The number of steps t, at least 1.
        hidden_features: The widths of the hidden layers of each step's network.

    Raises:
        ValueError: If a size is not a positive integer; when called, if the network's number of outputs is not
            ``2 * latent_dim + context_dim``.

    Example:
        >>> posterior = posteriors.InverseAutoregressive(nn.mlp((1, 4, 4), [8], 7), latent_dim=2, context_dim=3)
        >>> posterior(x).sample().shape
        torch.Size([8, 2])
    """

    def __init__(
        self,
        network: nn.Module,
        latent_dim: int,
        context_dim: int,
        transforms: int = 2,
        hidden_features: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        self.network, self.latent_dim, self.context_dim = network, latent_dim, context_dim
        self.transforms, self.hidden_features = transforms, hidden_features
        self.steps = autoregressive_transforms(latent_dim, context_dim, transforms, hidden_features)

    def forward(self, x: Tensor) -> Distribution:
        """Returns q(z | x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``."""
        loc, raw_scale, context = split_outputs(self.network(x), self.latent_dim, self.context_dim)
        base = dist.Normal(loc, positive_scale(raw_scale), validate_args=validation()).to_event(1)
        # zuko expects the transform from z to the base, so its inverse, which sampling uses, runs the steps forwards.
        return zuko.distributions.NormalizingFlow(self.steps(context).inv, base)
