"""Residual blocks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["ResidualBlock"]


class ResidualBlock(nn.Module):
    """x plus two 3x3 convolutions of x, each after its nonlinearity (He et al. 2016, Identity mappings, figure 4e).

    There is no normalization, as in Child 2021. Batch normalization is out of the question: with it the log-weight of a
    datapoint depends on the others in the batch. Nor is any needed to start: PyTorch's initial weights make the
    convolutions shrink what they are given, so that a block begins close to the identity, and fifty of them in a row
    enlarge standard normal inputs by less than half.

    Args:
        channels: The number of channels of x, which are kept.
        activation: Makes the nonlinearities.
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
