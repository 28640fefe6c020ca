"""Multilayer perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import nn

from pyro_vae.checks import check_count

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
    in_shape, out_shape = (_shape(name, sizes) for name, sizes in (("inputs", inputs), ("outputs", outputs)))
    widths = [prod(in_shape), *_shape("hidden", hidden, least=0), prod(out_shape)]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    layers.pop()  # no nonlinearity after the last layer
    if len(in_shape) > 1:
        layers.insert(0, nn.Flatten(start_dim=-len(in_shape), end_dim=-1))
    if len(out_shape) > 1:
        layers.append(nn.Unflatten(-1, out_shape))
    return nn.Sequential(*layers)


def _shape(name: str, sizes: int | Sequence[int], least: int = 1) -> tuple[int, ...]:
    shape = (sizes,) if isinstance(sizes, int) else tuple(sizes)
    if len(shape) < least:
        raise ValueError(f"{name} is {sizes!r}; expected an integer or a sequence of at least one")
    return tuple(check_count(name, size) for size in shape)
