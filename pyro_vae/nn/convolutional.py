"""Convolutional networks for images of any size: an encoder, and the decoder that mirrors it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from pyro_vae.nn.broadcast import Broadcast
from pyro_vae.nn.multilayer_perceptron import mlp
from pyro_vae.nn.shapes import as_shape

__all__ = ["convolutional_decoder", "convolutional_encoder"]


def convolutional_encoder(
    inputs: Sequence[int],
    outputs: int | Sequence[int],
    channels: int | Sequence[int] = (32, 64),
    activation: Callable[[], nn.Module] = nn.SiLU,
    block: Callable[[int], nn.Module] = nn.Identity,
) -> nn.Sequential:
    """Convolutions with stride 2, then a linear layer: ``[*batch, *inputs]`` to ``[*batch, *outputs]``.

    Each convolution (3x3) halves height and width, rounding up, so that any size of image will do.

    Args:
        inputs: The shape of one image, ``(channels, height, width)``.
        outputs: The shape of one output, an integer for a vector.
        channels: The number of channels after each halving.
        activation: Makes the nonlinearities.
        block: Makes what comes between a halving and its nonlinearity, given the number of channels: a module from
            ``[n, channels, height, width]`` to the same shape, such as :class:`ResidualBlock`. By default nothing. One
            with batch statistics would make the log-weight of a datapoint depend on the others.

    Raises:
        ValueError: If a size is not a positive integer, ``inputs`` is not the shape of an image, or the image is too
            small to be halved that often.
    """
    colors, height, width = _image_shape("inputs", inputs, dims=(3,))
    channels = as_shape("channels", channels)
    sizes = _halved("inputs", (height, width), len(channels))
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

    It mirrors :func:`convolutional_encoder`, of which the channels are reversed: each convolution doubles height and
    width, less one where the encoder rounded up. The kernels are 4x4, so that each pixel is reached by 2x2 of their
    weights; where the stride does not divide the kernel, some pixels are reached more often, which shows as a
    checkerboard (Odena et al. 2016). They start as what Odena et al. recommend, repeated pixels and a 3x3 convolution,
    and cost a fraction of it.

    Args:
        inputs: The shape of one input, an integer for a vector.
        outputs: The shape of one output, ``(channels, height, width)``, or ``(channels, height, width, parameters)``
            for a likelihood that has several parameters for each pixel.
        channels: The number of channels before each doubling.
        activation: Makes the nonlinearities.
        block: Makes what comes before each nonlinearity, as in :func:`convolutional_encoder`.

    Raises:
        ValueError: If a size is not a positive integer, ``outputs`` is not the shape of an image, or the image is too
            small to be halved that often.
    """
    colors, height, width, *parameters = _image_shape("outputs", outputs, dims=(3, 4))
    channels = as_shape("channels", channels)
    size, *larger = reversed(_halved("outputs", (height, width), len(channels)))
    layers: list[nn.Module] = []
    for (fan_in, fan_out), doubled in zip(pairwise((*channels, colors * prod(parameters))), larger, strict=True):
        layers += [block(fan_in), activation(), _doubling(fan_in, fan_out, doubled)]
    if parameters:
        layers.append(_ParametersLast(colors))
    return nn.Sequential(mlp(inputs, [], (channels[0], *size)), Broadcast(nn.Sequential(*layers), 3))


def _image_shape(name: str, sizes: Sequence[int], dims: Sequence[int]) -> tuple[int, ...]:
    shape = as_shape(name, sizes)
    if len(shape) not in dims:
        parameters = " or (channels, height, width, parameters)" if 4 in dims else ""
        raise ValueError(f"{name} is {sizes!r}; expected the shape of an image, (channels, height, width){parameters}")
    return shape


def _halved(name: str, size: tuple[int, int], times: int) -> list[tuple[int, int]]:
    """The sizes ``(height, width)`` of an image that is halved again and again, from the largest."""
    sizes = [size]
    for _ in range(times):
        height, width = sizes[-1]
        if min(height, width) == 1:
            raise ValueError(
                f"{name} has height and width {size[0]} x {size[1]}; expected more than {2 ** (times - 1)} of each for "
                f"{times} halvings, one for each of the channels"
            )
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


# Initial weights are those of He et al. 2015. PyTorch's would divide the differences between datapoints by three at
# each convolution, so that deep networks began blind.


def _halving(fan_in: int, fan_out: int) -> nn.Conv2d:
    convolution = nn.Conv2d(fan_in, fan_out, 3, stride=2, padding=1)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution


@torch.no_grad()
def _doubling(fan_in: int, fan_out: int, size: tuple[int, int]) -> nn.ConvTranspose2d:
    """A transposed convolution to images of the given size: twice that of its inputs, or one less if that is odd."""
    odd = (size[0] % 2, size[1] % 2)
    padding = (1 + odd[0], 1 + odd[1])
    convolution = nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=padding, output_padding=odd)
    kernel = nn.init.kaiming_normal_(torch.empty(fan_in, fan_out, 3, 3), mode="fan_out", nonlinearity="relu")
    # To repeat pixels 2x2 and convolve with a 3x3 kernel is to add up its four shifts.
    convolution.weight.copy_(avg_pool2d(pad(kernel, (1, 1, 1, 1)), 2, stride=1, divisor_override=1))
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution


class _ParametersLast(nn.Module):
    """``[n, colors * parameters, height, width]`` to ``[n, colors, height, width, parameters]``."""

    def __init__(self, colors: int) -> None:
        super().__init__()
        self.colors = colors

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.colors, -1)).movedim(2, -1)
