"""Networks for counts of which the total is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Log1p", "SizeFactor"]


class Log1p(nn.Module):
    """Calls the network with log(1 + x), for counts x that differ by orders of magnitude.

    Args:
        network: Maps ``[*batch, *event]`` to whatever it does.

    Example:
        >>> nn.Log1p(torch.nn.Identity())(torch.zeros(3))
        tensor([0., 0., 0.])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Calls the network with log(1 + x)."""
        return self.network(x.log1p())


class SizeFactor(nn.Module):
    """Log means of counts whose total is known: the log of size times proportions (Lopez et al. 2018).

    The last input is the logarithm of the size, such as the total count of a cell. The network sees the inputs before
    it. Its outputs become proportions by softmax.

    Args:
        network: Maps ``[*batch, inputs]`` to ``[*batch, features]``.

    Example:
        >>> nn.SizeFactor(torch.nn.Identity())(torch.tensor([0.0, 0.0, 3.0])).logsumexp(-1)
        tensor(3.)
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns log means ``[*batch, features]`` for inputs ``[*batch, inputs + 1]``."""
        return torch.log_softmax(self.network(inputs[..., :-1]), dim=-1) + inputs[..., -1:]
