"""Multilayer perceptrons with gated hidden layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pyro_vae.nn.feedforward import feedforward


def gated_mlp(inputs: int | Sequence[int], hidden: int | Sequence[int], outputs: int | Sequence[int]) -> nn.Sequential:
    """A multilayer perceptron with gated hidden layers: ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

    A hidden layer is (A x + a) * sigmoid(B x + b), a linear map times a gate (Dauphin et al. 2017, equation 1), as in
    the VAEs of Tomczak & Welling 2018. It has twice as many weights as a layer of :func:`mlp`.

    Args:
        inputs: The shape of one input, an integer for a vector; arrays are flattened.
        hidden: The width of each hidden layer, after the gates; an empty list for a linear map.
        outputs: The shape of one output, an integer for a vector.

    Raises:
        ValueError: If a size is not a positive integer.

    Example:
        >>> nn.gated_mlp((1, 28, 28), [300, 300], 2)(torch.zeros(8, 1, 28, 28)).shape
        torch.Size([8, 2])
    """
    return feedforward(inputs, hidden, outputs, _gated)


@torch.no_grad()
def _gated(fan_in: int, fan_out: int) -> list[nn.Module]:
    linear = nn.Linear(fan_in, 2 * fan_out)
    values, gates = linear.weight.chunk(2)  # in the order that nn.GLU expects
    # The gates start near one half; doubling the values compensates for it, so that the scale of x is kept.
    values.normal_(std=2 * fan_in**-0.5)
    gates.normal_(std=fan_in**-0.5)
    linear.bias.zero_()
    return [linear, nn.GLU()]
