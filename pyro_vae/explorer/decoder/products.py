"""Products of matrices, and convolutions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_vae.explorer.decoder.translation import Array, Translation, out_shape, shape_of


def _product(t: Translation, a: Any, b: Any, bias: Any = None) -> Array:
    """a ``[..., m, k]`` times b ``[..., k, n]``, plus bias ``[n]``: rows of a with columns of b."""
    *batch, m, k = shape_of(a)
    n = shape_of(b)[-1]
    columns = t.move(lambda each: each.mT, b)
    # Rows of the first array are outputs: those of b, since its columns are the units of a layer.
    return t.add(
        "dots",
        (*batch, m, n),
        left=t.number(columns),
        right=t.number(a),
        bias=None if bias is None else t.number(bias),
        batch=math.prod(batch),
        rows=n,
        columns=m,
        length=k,
    )


def _addmm(t: Translation, node: Any, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Array:
    if beta == alpha == 1 and shape_of(bias) == out_shape(node)[-1:]:
        return _product(t, a, b, bias)
    product = _product(t, a, b)
    if alpha != 1:
        product = t.elementwise("mul", product.shape, product, float(alpha))
    if beta != 1:
        bias = t.elementwise("mul", shape_of(bias), bias, float(beta))
    return t.elementwise("add", product.shape, product, bias)


def _linear(t: Translation, node: Any, x: Array, weight: Any, bias: Any = None) -> Array:
    flat = Array(x.number, (x.size // x.shape[-1], x.shape[-1]))
    result = _product(t, flat, t.move(lambda each: each.mT, weight), bias)
    return Array(result.number, out_shape(node))


def _mv(t: Translation, node: Any, a: Any, b: Any) -> Array:
    result = _product(t, a, t.move(lambda each: each.unsqueeze(-1), b))
    return Array(result.number, out_shape(node))


def _convolution(
    t: Translation,
    node: Any,
    x: Array,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,  # noqa: ARG001  # it is in the shape of the result
    groups: int,
) -> Array:
    dims = len(x.shape) - 2
    if dims > 2:
        raise ValueError("the likelihood uses a 3-dimensional convolution; the explorer's JavaScript supports 1 and 2")
    if not isinstance(weight, Tensor):
        raise ValueError(
            "the likelihood uses a convolution whose kernel depends on z, which the explorer does not have"
        )

    def two(values: Any, alone: int) -> list[int]:
        values = list(values) * (dims if len(values) == 1 else 1)
        return [alone] * (2 - dims) + [int(each) for each in values]

    out = out_shape(node)
    kernel = weight.reshape(*weight.shape[:2], *two(weight.shape[2:], 1))
    if transposed:  # to [groups, out * height * width, in]
        per_group = kernel.unflatten(0, (groups, -1))
        kernel = per_group.permute(0, 2, 3, 4, 1).contiguous()
    return t.add(
        "transposed convolution" if transposed else "convolution",
        out,
        input=x.number,
        weight=t.program.constant(kernel.to(torch.float32)),
        bias=None if bias is None else t.number(bias),
        batch=x.shape[0],
        groups=groups,
        channels=[x.shape[1], out[1]],
        size=two(x.shape[2:], 1),
        outSize=two(out[2:], 1),
        kernel=two(weight.shape[2:], 1),
        stride=two(stride, 1),
        padding=two(padding, 0),
        dilation=two(dilation, 1),
    )


OPERATORS: dict[str, Any] = {
    "addmm": _addmm,
    "bmm": lambda t, _, a, b: _product(t, a, b),
    "convolution": _convolution,
    "linear": _linear,
    "mm": lambda t, _, a, b: _product(t, a, b),
    "mv": _mv,
}
