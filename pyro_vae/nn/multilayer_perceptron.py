"""Multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from pyro_vae.nn.feedforward import feedforward


def mlp(
    inputs: int | Sequence[int],
    hidden: int | Sequence[int],
    outputs: int | Sequence[int],
    activation: Callable[[], nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """A multilayer perceptron: ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

    Hidden layers have the initial weights of He et al. (2015, equation 10), which keep the scale of the inputs. With
    PyTorch's initial weights the scale falls from layer to layer, and a deep encoder starts with nearly the same code
    for all data.

    Args:
        inputs: The shape of one input, an integer for a vector; arrays are flattened.
        hidden: The width of each hidden layer; an empty list for a linear map.
        outputs: The shape of one output, an integer for a vector.
        activation: A function that makes the nonlinearity after each hidden layer.

    Raises:
        ValueError: If a size is not a positive integer.

    Example:
        >>> nn.mlp((1, 28, 28), [200, 100], 2)(torch.zeros(8, 1, 28, 28)).shape
        torch.Size([8, 2])
    """

    def layer(fan_in: int, fan_out: int) -> list[nn.Module]:
        linear = nn.Linear(fan_in, fan_out)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        return [linear, activation()]

    return feedforward(inputs, hidden, outputs, layer)
