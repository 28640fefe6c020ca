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

    Args:
        inputs: The shape of one input, an integer for a vector; arrays are flattened.
        hidden: The width of each hidden layer; none for a linear map.
        outputs: The shape of one output, an integer for a vector.
        activation: Makes the nonlinearity after each hidden layer.

    Raises:
        ValueError: If a size is not a positive integer.
    """
    return feedforward(inputs, hidden, outputs, lambda fan_in, fan_out: [nn.Linear(fan_in, fan_out), activation()])
