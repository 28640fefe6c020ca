"""A normal posterior with a diagonal covariance."""

from __future__ import annotations

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.nn.functional import softplus

__all__ = ["Normal"]


class Normal(nn.Module):
    """q(z given x) = N(loc(x), diag(scale(x)^2)) (Kingma & Welling 2013, equation 9).

    The scale is softplus(raw) + sqrt(eps), with eps the precision of the dtype. It does not overflow (it is linear
    above), and for locations of order 1, as under a standard normal prior, it does not fall so low that z - loc, of
    which log q is computed, loses more than half of its digits to rounding.

    Args:
        network: Maps data ``[*batch, *event]`` to ``[*batch, 2 * latent]``: the locations, then the raw scales.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dist.TorchDistribution:
        """Returns q(z given x) of batch shape ``[*batch]`` and event shape ``[latent]``, for x ``[*batch, *event]``."""
        loc, raw_scale = self.network(x).chunk(2, dim=-1)
        scale = softplus(raw_scale) + torch.finfo(raw_scale.dtype).eps ** 0.5
        return dist.Normal(loc, scale).to_event(1)
