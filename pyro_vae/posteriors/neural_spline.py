"""A neural spline flow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.checks import check_count
from pyro_vae.distributions.zuko_import import zuko
from pyro_vae.posteriors.autoregressive import autoregressive_transforms, split_outputs
from pyro_vae.system.tracing import validation


class NeuralSpline(nn.Module):
    """Neural spline flow: z = loc(x) + scale(x) f(u), u ~ N(0, I), with monotonic splines f (Durkan et al. 2019).

    f is a sequence of autoregressive transforms. Each is a rational-quadratic spline on [-5, 5] and the identity
    outside (section 3.1), with knots computed from the preceding dimensions and the context of x; every second
    transform reverses the order of the dimensions. f starts close to the identity.

    Drawing z and computing its density takes one pass through each network, as in inverse autoregressive flow (Kingma
    et al. 2016). The density of any other z takes ``latent_dim`` passes through each.

    Args:
        network: Maps data ``[*batch, *event]`` to ``[*batch, 2 * latent_dim + context_dim]``: the locations, the raw
            log-scales, which are softly bounded by +-log(1000), and the context.
        latent_dim: The number of latent dimensions, at least 1.
        context_dim: The number of context dimensions, at least 1.
        transforms: The number of autoregressive transforms, at least 1.
        hidden_features: The widths of the hidden layers of each transform's network.
        bins: The number of pieces of each spline, at least 2.

    Raises:
        ValueError: If a size is not an integer or is too small; when called, if the network's number of outputs is not
            ``2 * latent_dim + context_dim``.

    Example:
        >>> posterior = posteriors.NeuralSpline(nn.mlp((1, 4, 4), [8], 7), latent_dim=2, context_dim=3)
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
        bins: int = 8,
    ) -> None:
        super().__init__()
        self.bins = check_count("bins", bins, least=2)
        self.network, self.latent_dim, self.context_dim = network, latent_dim, context_dim
        self.transforms, self.hidden_features = transforms, hidden_features
        self.splines = autoregressive_transforms(
            latent_dim,
            context_dim,
            transforms,
            hidden_features,
            univariate=zuko.transforms.MonotonicRQSTransform,
            shapes=[(bins,), (bins,), (bins - 1,)],  # widths, heights, slopes
        )

    def forward(self, x: Tensor) -> Distribution:
        """Returns q(z | x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``."""
        loc, raw_log_scale, context = split_outputs(self.network(x), self.latent_dim, self.context_dim)
        affine = zuko.transforms.MonotonicAffineTransform(loc, raw_log_scale)
        from_base = zuko.transforms.ComposedTransform(
            self.splines(context), zuko.transforms.DependentTransform(affine, 1)
        )
        base = dist.Normal(torch.zeros_like(loc), torch.ones_like(loc), validate_args=validation()).to_event(1)
        # zuko expects the transform from z to the base, so its inverse, which sampling uses, runs the splines forwards.
        return zuko.distributions.NormalizingFlow(from_base.inv, base)
