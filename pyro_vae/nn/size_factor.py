"""Networks for counts whose totals differ."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_vae.checks import check_positive
from pyro_vae.nn.with_network import WithNetwork


class Log1p(WithNetwork):
    """Calls the network with log(1 + x), for counts x that differ by orders of magnitude.

    Args:
        network: Maps ``[*batch, *event]`` to any output.

    Example:
        >>> nn.Log1p(torch.nn.Identity())(torch.zeros(3))
        tensor([0., 0., 0.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Calls the network with log(1 + x)."""
        return self.network(x.log1p())


class SizeFactor(WithNetwork):
    """Log means of counts that add up to a size: the log of size times proportions (Lopez et al. 2018).

    The last input tells the size: log size = center + scale * input. So a size that is known, such as the total count
    of a cell, is given as its logarithm. A size that is not known is the last latent: under a standard normal prior,
    the size has a log-normal prior with ``center`` and ``scale`` (Lopez et al. 2018, "The scVI probabilistic model").
    The network sees the other inputs. Its outputs become proportions by softmax.

    Args:
        network: Maps ``[*batch, inputs]`` to ``[*batch, features]``.
        center: The log size at input 0. For latent sizes, the mean of the logarithms of the total counts.
        scale: The change of the log size with the input. For latent sizes, their standard deviation.

    Raises:
        ValueError: If ``scale`` is not positive.

    Example:
        >>> nn.SizeFactor(torch.nn.Identity())(torch.tensor([0.0, 0.0, 3.0])).logsumexp(-1)
        tensor(3.)
    """

    def __init__(self, network: nn.Module, center: float = 0.0, scale: float = 1.0) -> None:
        super().__init__(network)
        self.center, self.scale = float(center), float(check_positive("scale", scale))

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns log means ``[*batch, features]`` for inputs ``[*batch, inputs + 1]``."""
        log_size = self.center + self.scale * inputs[..., -1:]
        return torch.log_softmax(self.network(inputs[..., :-1]), dim=-1) + log_size
