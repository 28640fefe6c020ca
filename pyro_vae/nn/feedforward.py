"""Feedforward networks from one shape to another, shared by all perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import nn

from pyro_vae.nn.shapes import as_shape


def feedforward(
    inputs: int | Sequence[int],
    hidden: int | Sequence[int],
    outputs: int | Sequence[int],
    layer: Callable[[int, int], Sequence[nn.Module]],
) -> nn.Sequential:
    """Hidden layers and then a linear layer: ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

    Args:
        inputs: The shape of one input, an integer for a vector; arrays are flattened.
        hidden: The width of each hidden layer; an empty list for a linear map.
        outputs: The shape of one output, an integer for a vector.
        layer: A function that makes a hidden layer, given its numbers of inputs and outputs.

    Raises:
        ValueError: If a size is not a positive integer.
    """
    in_shape, out_shape = as_shape("inputs", inputs), as_shape("outputs", outputs)
    widths = [prod(in_shape), *as_shape("hidden", hidden, least=0)]
    layers: list[nn.Module] = []
    if len(in_shape) > 1:
        layers.append(nn.Flatten(start_dim=-len(in_shape), end_dim=-1))
    for fan_in, fan_out in pairwise(widths):
        layers += layer(fan_in, fan_out)
    layers.append(nn.Linear(widths[-1], prod(out_shape)))
    if len(out_shape) > 1:
        layers.append(nn.Unflatten(-1, out_shape))
    return nn.Sequential(*layers)
