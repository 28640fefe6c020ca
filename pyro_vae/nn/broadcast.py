"""Makes networks that take one batch dimension accept any number."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from pyro_vae.checks import check_count


class Broadcast(nn.Module):
    """Turns a network from ``[n, *inputs]`` to ``[n, *outputs]`` into one from ``[*batch, *inputs]``.

    Convolutions and most networks for images take one batch dimension; likelihoods and posteriors are called with any
    number, such as particles and datapoints. This module flattens the leading dimensions and restores them afterwards.

    Args:
        network: A module that treats the rows of its input independently.
        event_dims: The number of dimensions of one input, ``len(inputs)``: 3 for images.

    Raises:
        ValueError: If ``event_dims`` is not an integer of at least 0.

    Example:
        >>> network = nn.Broadcast(torch.nn.Conv2d(1, 3, kernel_size=2), event_dims=3)
        >>> network(torch.zeros(5, 7, 1, 4, 4)).shape
        torch.Size([5, 7, 3, 3, 3])
    """

    def __init__(self, network: nn.Module, event_dims: int) -> None:
        super().__init__()
        self.network = network
        self.event_dims = check_count("event_dims", event_dims, least=0)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

        Raises:
            ValueError: If x has fewer than ``event_dims`` dimensions.
        """
        batch_dims = x.ndim - self.event_dims
        if batch_dims < 0:
            raise ValueError(f"x has shape {list(x.shape)}; expected at least {self.event_dims} dimensions")
        batch, event = x.shape[:batch_dims], x.shape[batch_dims:]
        y = self.network(x.reshape(prod(batch), *event))  # Size.numel() takes no symbolic sizes
        return y.reshape(*batch, *y.shape[1:])

    def extra_repr(self) -> str:
        """The arguments that ``print`` shows."""
        return f"event_dims={self.event_dims}"
