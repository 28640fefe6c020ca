"""A normal posterior with a full covariance."""

from __future__ import annotations

from math import isqrt

import torch
from pyro import distributions as dist
from torch import Tensor

from pyro_vae.distributions.positive_scale import positive_scale
from pyro_vae.nn.with_network import WithNetwork
from pyro_vae.system.tracing import validation


class FullNormal(WithNetwork):
    """q(z | x) = N(loc(x), L(x) L(x)^T) with L lower triangular (Kingma & Welling 2019, section 2.5.1).

    Below the diagonal, ``L[i, j] = scale[i] * raw[i, j] / (2 latent)``: a new network, whose outputs are of order 1,
    starts with small correlations in any number of dimensions, and the correlations do not depend on the scales.

    Args:
        network: Maps data ``[*batch, *event]`` to ``[*batch, latent + latent * (latent + 1) / 2]``: the locations, the
            raw scales (the diagonal of L, as in :class:`~pyro_vae.posteriors.Normal`), and the entries below the
            diagonal, row by row.

    Raises:
        ValueError: When called, if no number of latent dimensions has the network's number of outputs.

    Example:
        >>> posterior = posteriors.FullNormal(nn.mlp((1, 4, 4), [8], 5))  # 2 + 2 * 3 / 2 outputs
        >>> posterior(x).event_shape
        torch.Size([2])
    """

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Returns q(z | x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``."""
        outputs = self.network(x)
        latent = _latent_dim(outputs.shape[-1])
        loc, raw_scale, raw_below = outputs.split([latent, latent, latent * (latent - 1) // 2], dim=-1)
        scale = positive_scale(raw_scale)
        rows, columns = torch.tril_indices(latent, latent, -1, device=scale.device)
        scale_tril = scale.diag_embed()
        scale_tril[..., rows, columns] = scale[..., rows] * raw_below / (2 * latent)
        return dist.MultivariateNormal(loc, scale_tril=scale_tril, validate_args=validation())


def _latent_dim(outputs: int) -> int:
    latent = (isqrt(9 + 8 * outputs) - 3) // 2  # the root of latent (latent + 3) / 2 = outputs
    if latent < 1 or latent * (latent + 3) // 2 != outputs:
        raise ValueError(
            f"the network of FullNormal has {outputs} outputs for a datapoint; expected "
            "latent + latent * (latent + 1) / 2, such as 5 for 2 latent dimensions or 65 for 10"
        )
    return latent
