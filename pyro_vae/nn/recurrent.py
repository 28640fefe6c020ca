"""Recurrent networks for series ``[steps, features]``."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from pyro_vae.checks import check_count
from pyro_vae.nn.broadcast import Broadcast
from pyro_vae.nn.multilayer_perceptron import mlp
from pyro_vae.nn.shapes import SERIES, event_shape


def recurrent_encoder(inputs: Sequence[int], outputs: int | Sequence[int], hidden: int = 64) -> nn.Sequential:
    """A gated recurrent unit in both directions, then a linear layer: ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

    The linear layer gets the last state of each direction (Cho et al. 2014 for the unit; Schuster & Paliwal 1997).

    Steps of SVI take one operation for each step of the series: to record and compile them takes long, so that
    ``compile=False`` is often the better choice for long series.

    Args:
        inputs: The shape of one series, ``(steps, features)``. The number of steps may differ when it is called.
        outputs: The shape of one output, an integer for a vector.
        hidden: The size of the state of each direction.

    Raises:
        ValueError: If a size is not a positive integer, or ``inputs`` is not the shape of a series.

    Example:
        >>> nn.recurrent_encoder((50, 3), 4)(torch.zeros(2, 50, 3)).shape
        torch.Size([2, 4])
    """
    _, features = event_shape("inputs", inputs, SERIES)
    check_count("hidden", hidden)
    return nn.Sequential(Broadcast(_LastStates(features, hidden), 2), mlp(2 * hidden, [], outputs))


def recurrent_decoder(inputs: int, outputs: Sequence[int], hidden: int = 64) -> nn.Module:
    """A gated recurrent unit with z at every step, then a linear layer: ``[*batch, inputs]`` to ``[*batch, *outputs]``.

    Args:
        inputs: The size of z.
        outputs: The shape of one output, ``(steps, features)``, or ``(steps, features, parameters)`` for a likelihood
            that has several parameters for each value.
        hidden: The size of the state.

    Raises:
        ValueError: If a size is not a positive integer, or ``outputs`` is not the shape of a series.

    Example:
        >>> nn.recurrent_decoder(4, (50, 3, 2))(torch.zeros(7, 2, 4)).shape
        torch.Size([7, 2, 50, 3, 2])
    """
    steps, *event = event_shape("outputs", outputs, SERIES, parameters=True)
    check_count("inputs", inputs)
    check_count("hidden", hidden)
    layers: list[nn.Module] = [_States(inputs, steps, hidden), nn.Linear(hidden, prod(event))]
    if len(event) > 1:
        layers.append(nn.Unflatten(-1, tuple(event)))
    return Broadcast(nn.Sequential(*layers), 1)


class _LastStates(nn.Module):
    """``[n, steps, features]`` to ``[n, 2 * hidden]``: the last state of each direction."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.features, self.hidden = features, hidden
        self.unit = nn.GRU(features, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        _, states = self.unit(x)
        return states.transpose(0, 1).flatten(1)


class _States(nn.Module):
    """``[n, inputs]`` to ``[n, steps, hidden]``: the states of a unit that gets the same input at every step."""

    def __init__(self, inputs: int, steps: int, hidden: int) -> None:
        super().__init__()
        self.inputs, self.steps, self.hidden = inputs, steps, hidden
        self.begin = nn.Linear(inputs, hidden)
        self.unit = nn.GRU(inputs, hidden, batch_first=True)

    def forward(self, z: Tensor) -> Tensor:
        repeated = z.unsqueeze(1).expand(-1, self.steps, -1)
        return self.unit(repeated, self.begin(z).tanh().unsqueeze(0))[0]
