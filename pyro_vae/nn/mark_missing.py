"""Networks for series and arrays with missing values."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.nn.with_network import WithNetwork


class MarkMissing(WithNetwork):
    """Replaces missing values by zeros, appends a mask, and calls the network.

    The last dimension gets twice as many features: the values, and for each of them 1 if it is observed, else 0. So a
    network can distinguish missing values from zeros, and the end of a short series from its values.

    Args:
        network: Maps ``[*batch, *event, 2 * features]`` to any output.

    Example:
        >>> nn.MarkMissing(torch.nn.Identity())(torch.tensor([[3.0, torch.nan]]))
        tensor([[3., 0., 1., 0.]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Calls the network with the values and marks of x ``[*batch, *event, features]``."""
        missing = x.isnan()
        return self.network(torch.cat([torch.where(missing, 0.0, x), (~missing).to(x.dtype)], dim=-1))
