"""Operators that combine values along dimensions: sums, means, extremes."""

from __future__ import annotations

import math
from typing import Any

from pyro_vae.explorer.decoder.translation import Array, Translation, out_shape


def _reduction(function: str) -> Any:
    def translate(t: Translation, node: Any, x: Array, dim: Any = None, *_: Any, **settings: Any) -> Array:
        dims = range(len(x.shape)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
        reduced = {each % len(x.shape) for each in dims} if x.shape else set()
        kept = [i for i in range(len(x.shape)) if i not in reduced]
        dense = t.dense(x, (*kept, *sorted(reduced)))
        inner = math.prod(x.shape[i] for i in reduced)
        known = {name: settings[name] for name in ("correction",) if settings.get(name) is not None}
        return t.add("reduce", out_shape(node), function=function, input=dense.number, inner=inner, **known)

    return translate


def _with_position(function: str) -> Any:
    """For ``max`` and ``min``: with a dimension, they also return the positions."""

    def translate(t: Translation, node: Any, x: Array, dim: int | None = None, *_: Any) -> Any:
        if dim is None:
            return t.add("reduce", out_shape(node), function=function, input=x.number, inner=x.size)
        dim = dim % len(x.shape)
        shape, inner = tuple(node.meta["val"][0].shape), x.shape[dim]
        dense = t.dense(x, (*(i for i in range(len(x.shape)) if i != dim), dim))
        names = (function, f"arg{function}")
        return [t.add("reduce", shape, function=name, input=dense.number, inner=inner) for name in names]

    return translate


def _var_mean(t: Translation, node: Any, x: Array, dim: Any = None, **settings: Any) -> list[Array]:
    outputs = [_Output(node.meta["val"][i]) for i in range(2)]
    return [_reduction(name)(t, out, x, dim, **settings) for name, out in zip(("var", "mean"), outputs, strict=True)]


class _Output:
    """One of several outputs, as a node of its own."""

    def __init__(self, value: Any) -> None:
        self.meta = {"val": value}


def _cumsum(t: Translation, node: Any, x: Array, dim: int, **_: Any) -> Array:  # noqa: ARG001
    dim = dim % len(x.shape)
    inner = math.prod(x.shape[dim + 1 :])
    return t.add("cumsum", x.shape, input=x.number, length=x.shape[dim], inner=inner)


def _discretized_logistic_mean(t: Translation, node: Any, loc: Array, scale: Any, levels: int) -> Array:
    inputs = [t.number(loc), t.number(scale)]
    return t.add("discretized logistic mean", out_shape(node), inputs=inputs, levels=levels)


OPERATORS: dict[str, Any] = {
    **{name: _reduction(name) for name in ("all", "any", "argmax", "argmin", "mean", "prod", "sum", "var")},
    "amax": _reduction("max"),
    "amin": _reduction("min"),
    "cumsum": _cumsum,
    "discretized_logistic_mean": _discretized_logistic_mean,
    "max": _with_position("max"),
    "min": _with_position("min"),
    "var_mean": _var_mean,
}
