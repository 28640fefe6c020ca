"""Multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from pyro_vae.nn.feedforward import feedforward

__all__ = ["mlp"]


def mlp(
    inputs: int | Sequence[int],
    hidden: int | Sequence[int],
    outputs: int | Sequence[int],
    activation: Callable[[], nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """A multilayer perceptron between vectors or arrays: ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

    Hidden layers begin with the weights of He et al. (2015, equation 10), which keep the scale of what comes in; with
    PyTorch's own it fades from layer to layer, and a deep encoder begins by giving the same code to all data.

    Args:
        inputs: The shape of one input, an integer for a vector; arrays are flattened.
        hidden: The width of each hidden layer; none for a linear map.
        outputs: The shape of one output, an integer for a vector.
        activation: Makes the nonlinearity after each hidden layer.

    Raises:
        ValueError: If a size is not a positive integer.
    """

    def layer(fan_in: int, fan_out: int) -> list[nn.Module]:
        linear = nn.Linear(fan_in, fan_out)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        return [linear, activation()]

    return feedforward(inputs, hidden, outputs, layer)
