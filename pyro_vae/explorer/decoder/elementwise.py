"""Operators on each value alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae.explorer.decoder.translation import Array, Translation, name_of, out_shape, shape_of

UNARY = [
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "bitwise_not", "ceil", "cos", "cosh", "erf",
    "erfc", "exp", "exp2", "expm1", "floor", "isinf", "isnan", "log", "log10", "log1p", "log2", "logical_not",
    "neg", "reciprocal", "relu", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh",
    "trunc",
]  # fmt: skip
BINARY = [
    "atan2", "bitwise_and", "bitwise_or", "bitwise_xor", "eq", "fmod", "ge", "gt", "le", "logical_and",
    "logical_or", "logical_xor", "lt", "maximum", "minimum", "mul", "ne", "pow", "remainder",
]  # fmt: skip


def _unary(name: str) -> Any:
    return lambda t, node, x: t.elementwise(name, out_shape(node), x)


def _binary(name: str) -> Any:
    return lambda t, node, a, b: t.elementwise(name, out_shape(node), a, b)


def _scaled_sum(sign: float) -> Any:
    def translate(t: Translation, node: Any, a: Any, b: Any, alpha: float = 1) -> Array:
        if alpha * sign not in (1, -1):
            b = t.elementwise("mul", shape_of(b), b, float(alpha))
        return t.elementwise("add" if sign > 0 else "sub", out_shape(node), a, b)

    return translate


def _div(t: Translation, node: Any, a: Any, b: Any, rounding_mode: str | None = None) -> Array:
    quotient = t.elementwise("div", out_shape(node), a, b)
    return quotient if rounding_mode is None else t.elementwise(rounding_mode, quotient.shape, quotient)


def _clamp(t: Translation, node: Any, x: Any, min: Any = None, max: Any = None) -> Any:  # noqa: A002
    for function, bound in (("maximum", min), ("minimum", max)):
        if bound is not None:
            x = t.elementwise(function, out_shape(node), x, bound)
    return x


def _to_dtype(t: Translation, node: Any, x: Any, *_: Any, **__: Any) -> Any:
    was, is_ = node.args[0].meta["val"].dtype, node.meta["val"].dtype
    if is_ == torch.bool and was != torch.bool:
        return t.elementwise("ne", out_shape(node), x, 0.0)
    if not is_.is_floating_point and was.is_floating_point:
        return t.elementwise("trunc", out_shape(node), x)
    return x


def _full_like(t: Translation, node: Any, *args: Any, **__: Any) -> Tensor:  # noqa: ARG001
    fill = {"zeros_like": 0.0, "ones_like": 1.0}.get(name_of(node.target))
    return torch.full(out_shape(node), float(args[1] if fill is None else fill))


OPERATORS: dict[str, Any] = {
    **{name: _unary(name) for name in UNARY},
    **{name: _binary(name) for name in BINARY},
    "_to_copy": _to_dtype,
    "add": _scaled_sum(1.0),
    "clamp": _clamp,
    "clamp_max": lambda t, node, x, bound: _clamp(t, node, x, None, bound),
    "clamp_min": lambda t, node, x, bound: _clamp(t, node, x, bound),
    "div": _div,
    "full_like": _full_like,
    "ones_like": _full_like,
    "rsub": lambda t, node, a, b: t.elementwise("sub", out_shape(node), b, a),
    "sub": _scaled_sum(-1.0),
    "where": lambda t, node, mask, a, b: t.elementwise("where", out_shape(node), mask, a, b),
    "zeros_like": _full_like,
}
