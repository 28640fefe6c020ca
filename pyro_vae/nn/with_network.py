"""What modules around one network share."""

from __future__ import annotations

from torch import nn


class WithNetwork(nn.Module):
    """A module that is made of one network.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
