"""Residual blocks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x plus two 3x3 convolutions of x, each after a nonlinearity (He et al. 2016, Identity mappings, figure 4e).

    There is no normalization, as in Child 2021. With batch normalization the log-weight of a datapoint would depend on
    the other datapoints of the batch. Normalization is not needed at the start of training either: with PyTorch's
    initial weights the convolutions shrink their inputs, so a block is close to the identity, and fifty blocks in a row
    enlarge standard normal inputs by less than half.

    Args:
        channels: The number of channels of x.
        activation: A function that makes a nonlinearity.

    Example:
        >>> nn.ResidualBlock(3)(torch.zeros(8, 3, 4, 4)).shape
        torch.Size([8, 3, 4, 4])
    """

    def __init__(self, channels: int, activation: Callable[[], nn.Module] = nn.SiLU) -> None:
        super().__init__()
        self.channels, self.activation = channels, activation
        self.branch = nn.Sequential(
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[n, channels, height, width]`` to the same shape."""
        return x + self.branch(x)
