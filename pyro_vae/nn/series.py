"""Convolutional networks for series ``[steps, features]``: an encoder, and the decoder that mirrors it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from pyro_vae.nn.broadcast import Broadcast
from pyro_vae.nn.multilayer_perceptron import mlp
from pyro_vae.nn.shapes import SERIES, as_shape, event_shape, halved


def series_encoder(
    inputs: Sequence[int],
    outputs: int | Sequence[int],
    channels: int | Sequence[int] = (32, 64),
    activation: Callable[[], nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """Convolutions over time with stride 2, then a linear layer: ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

    Each convolution, of 3 steps, halves the length, rounding up.

    Args:
        inputs: The shape of one series, ``(steps, features)``.
        outputs: The shape of one output, an integer for a vector.
        channels: The number of channels after each halving.
        activation: Makes the nonlinearities.

    Raises:
        ValueError: If a size is not a positive integer, ``inputs`` is not the shape of a series, or the series is too
            short to be halved that often.

    Example:
        >>> nn.series_encoder((50, 3), 4)(torch.zeros(2, 50, 3)).shape
        torch.Size([2, 4])
    """
    steps, features = event_shape("inputs", inputs, SERIES)
    channels = as_shape("channels", channels)
    lengths = halved(f"inputs has {steps} steps", (steps,), len(channels))
    layers: list[nn.Module] = [_Transpose()]
    for fan_in, fan_out in pairwise((features, *channels)):
        layers += [_initialized(nn.Conv1d(fan_in, fan_out, 3, stride=2, padding=1)), activation()]
    return nn.Sequential(Broadcast(nn.Sequential(*layers), 2), mlp((channels[-1], *lengths[-1]), [], outputs))


def series_decoder(
    inputs: int | Sequence[int],
    outputs: Sequence[int],
    channels: int | Sequence[int] = (64, 32),
    activation: Callable[[], nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """A linear layer, then transposed convolutions over time: ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

    It mirrors :func:`series_encoder`, with reversed channels: each convolution doubles the length, less one
    where the encoder rounded up. The kernels have 4 steps, so that each step is reached by two of their weights.

    Args:
        inputs: The shape of one input, an integer for a vector.
        outputs: The shape of one output, ``(steps, features)``, or ``(steps, features, parameters)`` for a likelihood
            that has several parameters for each value.
        channels: The number of channels before each doubling.
        activation: Makes the nonlinearities.

    Raises:
        ValueError: If a size is not a positive integer, ``outputs`` is not the shape of a series, or the series is too
            short to be halved that often.

    Example:
        >>> nn.series_decoder(4, (50, 3, 2))(torch.zeros(7, 2, 4)).shape
        torch.Size([7, 2, 50, 3, 2])
    """
    steps, features, *parameters = event_shape("outputs", outputs, SERIES, parameters=True)
    channels = as_shape("channels", channels)
    length, *longer = reversed(halved(f"outputs has {steps} steps", (steps,), len(channels)))
    layers: list[nn.Module] = []
    for (fan_in, fan_out), (doubled,) in zip(pairwise((*channels, features * prod(parameters))), longer, strict=True):
        odd = doubled % 2
        doubling = nn.ConvTranspose1d(fan_in, fan_out, 4, stride=2, padding=1 + odd, output_padding=odd)
        layers += [activation(), _initialized(doubling)]
    layers.append(_Transpose())
    if parameters:
        layers.append(nn.Unflatten(-1, (features, *parameters)))
    return nn.Sequential(mlp(inputs, [], (channels[0], *length)), Broadcast(nn.Sequential(*layers), 2))


class _Transpose(nn.Module):
    """``[n, a, b]`` to ``[n, b, a]``: between time first, as data have it, and channels first, as convolutions do."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mT


def _initialized(convolution: nn.Conv1d | nn.ConvTranspose1d) -> nn.Module:
    """With the initial weights of He et al. 2015, and no bias."""
    if isinstance(convolution, nn.ConvTranspose1d):
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    else:
        nn.init.kaiming_normal_(convolution.weight, mode="fan_in", nonlinearity="relu")
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution
