"""Convolutional networks for images of any size: an encoder, and a decoder that mirrors it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from pyro_vae.nn.broadcast import Broadcast
from pyro_vae.nn.multilayer_perceptron import mlp
from pyro_vae.nn.shapes import IMAGE, as_shape, event_shape, halved


def convolutional_encoder(
    inputs: Sequence[int],
    outputs: int | Sequence[int],
    channels: int | Sequence[int] = (32, 64),
    activation: Callable[[], nn.Module] = nn.SiLU,
    block: Callable[[int], nn.Module] = nn.Identity,
) -> nn.Sequential:
    """Convolutions with stride 2, then a linear layer: ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

    Each convolution (3x3) halves height and width, rounding up, so images may have any size.

    Args:
        inputs: The shape of one image, ``(channels, height, width)``.
        outputs: The shape of one output, an integer for a vector.
        channels: The number of channels after each convolution.
        activation: A function that makes a nonlinearity.
        block: A function that makes a module to put between a convolution and its nonlinearity, given the number of
            channels. The module keeps the shape ``[n, channels, height, width]``, as :class:`ResidualBlock` does; by
            default it is the identity. With batch normalization, the log-weight of a datapoint would depend on the
            other datapoints.

    Raises:
        ValueError: If a size is not a positive integer, ``inputs`` is not the shape of an image, or the image is too
            small to be halved that often.

    Example:
        >>> network = nn.convolutional_encoder((1, 28, 28), 10, block=nn.ResidualBlock)
        >>> network(torch.zeros(8, 1, 28, 28)).shape
        torch.Size([8, 10])
    """
    colors, height, width = event_shape("inputs", inputs, IMAGE)
    channels = as_shape("channels", channels)
    sizes = halved(f"inputs has height and width {height} x {width}", (height, width), len(channels))
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise((colors, *channels)):
        layers += [_halving(fan_in, fan_out), block(fan_out), activation()]
    return nn.Sequential(Broadcast(nn.Sequential(*layers), 3), mlp((channels[-1], *sizes[-1]), [], outputs))


def convolutional_decoder(
    inputs: int | Sequence[int],
    outputs: Sequence[int],
    channels: int | Sequence[int] = (64, 32),
    activation: Callable[[], nn.Module] = nn.SiLU,
    block: Callable[[int], nn.Module] = nn.Identity,
) -> nn.Sequential:
    """A linear layer, then transposed convolutions with stride 2: ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

    It mirrors :func:`convolutional_encoder` with the channels in reverse order: each convolution doubles height and
    width, minus one where the encoder rounded up. The kernels are 4x4, so every output pixel depends on 2x2 of their
    weights; if the stride does not divide the kernel size, the number differs between pixels, which causes checkerboard
    patterns (Odena et al. 2016). Initially each convolution is what Odena et al. recommend, repeated pixels followed by
    a 3x3 convolution, at a fraction of the cost.

    Args:
        inputs: The shape of one input, an integer for a vector.
        outputs: The shape of one output, ``(channels, height, width)``, or ``(channels, height, width, parameters)``
            for a likelihood with several parameters for each pixel.
        channels: The number of channels before each convolution.
        activation: A function that makes a nonlinearity.
        block: A function that makes a module to put before each nonlinearity, as in :func:`convolutional_encoder`.

    Raises:
        ValueError: If a size is not a positive integer, ``outputs`` is not the shape of an image, or the image is too
            small to be halved that often.

    Example:
        >>> network = nn.convolutional_decoder(10, (1, 28, 28))
        >>> network(torch.zeros(8, 10)).shape
        torch.Size([8, 1, 28, 28])
    """
    colors, height, width, *parameters = event_shape("outputs", outputs, IMAGE, parameters=True)
    channels = as_shape("channels", channels)
    what = f"outputs has height and width {height} x {width}"
    size, *larger = reversed(halved(what, (height, width), len(channels)))
    layers: list[nn.Module] = []
    for (fan_in, fan_out), doubled in zip(pairwise((*channels, colors * prod(parameters))), larger, strict=True):
        layers += [block(fan_in), activation(), _doubling(fan_in, fan_out, doubled)]
    if parameters:
        layers.append(_ParametersLast(colors))
    return nn.Sequential(mlp(inputs, [], (channels[0], *size)), Broadcast(nn.Sequential(*layers), 3))


# Initial weights are those of He et al. 2015. With PyTorch's, each convolution divides the differences between
# datapoints by three, so that the outputs of a deep network hardly depend on its inputs at first.


def _halving(fan_in: int, fan_out: int) -> nn.Conv2d:
    convolution = nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # not None, since bias=True
    return convolution


@torch.no_grad()
def _doubling(fan_in: int, fan_out: int, size: Sequence[int]) -> nn.ConvTranspose2d:
    """A transposed convolution to images of a given size: twice the size of its inputs, or one less if odd."""
    odd = (size[0] % 2, size[1] % 2)
    padding = (1 + odd[0], 1 + odd[1])
    convolution = nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=padding, output_padding=odd)
    kernel = nn.init.kaiming_normal_(torch.empty(fan_in, fan_out, 3, 3), mode="fan_out", nonlinearity="relu")
    # Repeating pixels 2x2 and convolving with a 3x3 kernel is the same as adding up its four shifts.
    convolution.weight.copy_(avg_pool2d(pad(kernel, (1, 1, 1, 1)), 2, stride=1, divisor_override=1))
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # not None, since bias=True
    return convolution


class _ParametersLast(nn.Module):
    """``[n, colors * parameters, height, width]`` to ``[n, colors, height, width, parameters]``."""

    def __init__(self, colors: int) -> None:
        super().__init__()
        self.colors = colors

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.colors, -1)).movedim(2, -1)
