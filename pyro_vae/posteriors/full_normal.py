"""A normal posterior with a full covariance."""

from __future__ import annotations

from math import isqrt

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_vae.distributions.positive_scale import positive_scale

__all__ = ["FullNormal"]


class FullNormal(nn.Module):
    """q(z | x) = N(loc(x), L(x) L(x)^T), L lower triangular (Kingma & Welling 2019, section 2.5.1).

    Below its diagonal, ``L[i, j] = scale[i] * raw[i, j] / (2 latent)``: a fresh network, with outputs of order 1,
    starts with small correlations in any number of dimensions, and correlations do not depend on the scales.

    Args:
        network: Maps data ``[*batch, *event]`` to ``[*batch, latent + latent * (latent + 1) / 2]``: the locations, the
            raw scales (the diagonal of L, as in :class:`~pyro_vae.posteriors.Normal`), and what is below the diagonal,
            row by row.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Returns q(z | x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``.

        Raises:
            ValueError: If the network's number of outputs is that of no number of latent dimensions.
        """
        outputs = self.network(x)
        latent = _latent_dim(outputs.shape[-1])
        loc, raw_scale, raw_below = outputs.split([latent, latent, latent * (latent - 1) // 2], dim=-1)
        scale = positive_scale(raw_scale)
        rows, columns = torch.tril_indices(latent, latent, -1, device=scale.device)
        scale_tril = scale.diag_embed()
        scale_tril[..., rows, columns] = scale[..., rows] * raw_below / (2 * latent)
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)


def _latent_dim(outputs: int) -> int:
    latent = (isqrt(9 + 8 * outputs) - 3) // 2  # the root of latent (latent + 3) / 2 = outputs
    if latent < 1 or latent * (latent + 3) // 2 != outputs:
        raise ValueError(
            f"the network of FullNormal gives {outputs} numbers for a datapoint; expected "
            "latent + latent * (latent + 1) / 2, such as 5 for 2 latent dimensions or 65 for 10"
        )
    return latent
