"""From an exported graph to the operations that JavaScript runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae.explorer.decoder.program import Program

__all__ = ["lower"]


@dataclass(frozen=True)
class Array:
    """An array of the program, with the shape that it has here."""

    number: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


def lower(exported: Any) -> Program:
    """Translates an exported graph.

    What depends on weights alone is computed here. What only moves values (views, slices, padding, upsampling) becomes
    strides or a list of positions.

    Args:
        exported: What :func:`~pyro_vae.explorer.decoder.tracing.trace` returns.

    Raises:
        ValueError: If the graph has an operator that the page cannot compute; the message names it.
    """
    translation = _Translation()
    signature = exported.graph_signature
    held = {**exported.state_dict, **exported.constants}
    targets = {spec.arg.name: spec.target for spec in signature.input_specs if spec.target is not None}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            if node.name in targets:
                translation.values[node] = held[targets[node.name]].detach()
            else:
                translation.input(node)
        elif node.op == "get_attr":
            translation.values[node] = getattr(exported.graph_module, node.target)
        elif node.op == "call_function":
            translation.call(node)
        elif node.op == "output":
            translation.output(node)
    return translation.program


class _Translation:
    """The program so far, and the value of each node: a tensor if it depends on weights alone, else an array."""

    def __init__(self) -> None:
        self.program = Program()
        self.values: dict[Any, Any] = {}

    def input(self, node: Any) -> None:
        """The input z."""
        shape = tuple(node.meta["val"].shape)
        self.program.input = self.program.array(math.prod(shape))
        self.values[node] = Array(self.program.input, shape)

    def output(self, node: Any) -> None:
        """The results."""
        self.program.outputs = [self.number(self.values[each]) for each in node.args[0]]

    def call(self, node: Any) -> None:
        """One call of an operator."""
        known = self.values
        args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), known.__getitem__)
        if not _has_array((args, kwargs)):
            known[node] = node.target(*args, **kwargs)
            return
        name = _name(node.target)
        if name.startswith(("_assert", "sym_constrain")):  # they compute nothing
            return
        if name == "getitem":
            known[node] = args[0][args[1]]
            return
        translate = _OPERATORS.get(name)
        if translate is None:
            raise ValueError(
                f"the likelihood uses the operator {node.target}, which the explorer's JavaScript does not have"
            )
        known[node] = translate(self, node, *args, **kwargs)

    def number(self, value: Any) -> int:
        """The array of a value: weights and Python numbers become constants."""
        if isinstance(value, Array):
            return value.number
        return self.program.constant(_as_tensor(value).to(torch.float32))

    def add(self, kind: str, shape: tuple[int, ...], /, **settings: Any) -> Array:
        """Adds an operation with a result of this shape."""
        return Array(self.program.add(kind, math.prod(shape), **settings), shape)

    def elementwise(self, function: str, shape: tuple[int, ...], *operands: Any) -> Array:
        """A function of each value of operands that broadcast to a shape."""
        strides = [_broadcast_strides(value, shape) for value in operands]
        settings = {} if not any(strides) else {"shape": list(shape), "strides": strides}
        return self.add(
            "elementwise", shape, function=function, inputs=[self.number(each) for each in operands], **settings
        )

    def move(self, move: Callable[[Tensor], Any], value: Any) -> Any:
        """What an operator that only moves values does: it is run on the positions 0, 1, 2, ..."""
        if not isinstance(value, Array):
            return move(value)
        positions = torch.arange(value.size, dtype=torch.float64).reshape(value.shape)
        moved = move(positions)
        if isinstance(moved, (list, tuple)):
            return [self._moved(value, positions, each) for each in moved]
        return self._moved(value, positions, moved)

    def _moved(self, value: Array, positions: Tensor, moved: Tensor) -> Array:
        shape = tuple(moved.shape)
        if moved.numel() == value.size and torch.equal(moved.reshape(-1), positions.reshape(-1)):
            return Array(value.number, shape)
        if moved.untyped_storage().data_ptr() == positions.untyped_storage().data_ptr():
            strides = {"shape": list(shape), "strides": list(moved.stride()), "offset": moved.storage_offset()}
            return self.add("strided", shape, input=value.number, **strides)
        return self.gathered(value, moved)

    def gathered(self, value: Array, positions: Tensor, fill: float = 0.0) -> Array:
        """The values at these positions, and ``fill`` where a position is negative."""
        if positions.numel() == value.size and torch.equal(positions.reshape(-1), torch.arange(value.size).to(positions)):
            return Array(value.number, tuple(positions.shape))
        places = self.program.constant(positions.to(torch.int32))
        return self.add("gather", tuple(positions.shape), input=value.number, positions=places, fill=fill)

    def dense(self, value: Any, order: tuple[int, ...]) -> Any:
        """The value with its dimensions in another order, one after the other in memory."""
        return self.move(lambda each: each.permute(order), value)


def _has_array(args: Any) -> bool:
    if isinstance(args, Array):
        return True
    if isinstance(args, dict):
        return any(map(_has_array, args.values()))
    return isinstance(args, (list, tuple)) and any(map(_has_array, args))


def _name(target: Any) -> str:
    """The name of an operator, without its overload: ``add`` for ``aten.add.Tensor``."""
    if isinstance(target, torch._ops.OpOverload):
        return target.overloadpacket.__name__
    return getattr(target, "__name__", str(target))


def _as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(float(value))


def _shape(value: Any) -> tuple[int, ...]:
    return value.shape if isinstance(value, Array) else tuple(_as_tensor(value).shape)


def _out(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _broadcast_strides(value: Any, shape: tuple[int, ...]) -> list[int] | None:
    """The strides of a value that broadcasts to a shape; None if it has this shape."""
    own = _shape(value)
    if own == shape:
        return None
    return list(torch.empty(own).expand(shape).stride())


# Elementwise functions ------------------------------------------------------------------------------------------------

_UNARY = """abs acos acosh asin asinh atan atanh bitwise_not ceil cos cosh erf erfc exp exp2 expm1 floor isinf isnan log
log10 log1p log2 logical_not neg reciprocal relu round rsqrt sigmoid sign sin sinh sqrt tan tanh trunc""".split()
_BINARY = """atan2 bitwise_and bitwise_or bitwise_xor div eq fmod ge gt le logical_and logical_or logical_xor lt maximum
minimum mul ne pow remainder""".split()


def _unary(name: str) -> Any:
    return lambda t, node, x: t.elementwise(name, _out(node), x)


def _binary(name: str) -> Any:
    return lambda t, node, a, b: t.elementwise(name, _out(node), a, b)


def _scaled_sum(sign: float) -> Any:
    def translate(t: _Translation, node: Any, a: Any, b: Any, alpha: float = 1) -> Array:
        if alpha * sign not in (1, -1):
            b = t.elementwise("mul", _shape(b), b, float(alpha))
        return t.elementwise("add" if sign > 0 else "sub", _out(node), a, b)

    return translate


def _div(t: _Translation, node: Any, a: Any, b: Any, rounding_mode: str | None = None) -> Array:
    quotient = t.elementwise("div", _out(node), a, b)
    return quotient if rounding_mode is None else t.elementwise(rounding_mode, quotient.shape, quotient)


def _clamp(t: _Translation, node: Any, x: Any, min: Any = None, max: Any = None) -> Any:  # noqa: A002
    for function, bound in (("maximum", min), ("minimum", max)):
        if bound is not None:
            x = t.elementwise(function, _out(node), x, bound)
    return x


def _to_dtype(t: _Translation, node: Any, x: Any, *_: Any, **__: Any) -> Any:
    was, is_ = node.args[0].meta["val"].dtype, node.meta["val"].dtype
    if is_ == torch.bool and was != torch.bool:
        return t.elementwise("ne", _out(node), x, 0.0)
    if not is_.is_floating_point and was.is_floating_point:
        return t.elementwise("trunc", _out(node), x)
    return x


# Sums and other reductions --------------------------------------------------------------------------------------------


def _reduction(function: str) -> Any:
    def translate(t: _Translation, node: Any, x: Array, dim: Any = None, *_: Any, **settings: Any) -> Array:
        dims = range(len(x.shape)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
        reduced = {each % len(x.shape) for each in dims} if x.shape else set()
        kept = [i for i in range(len(x.shape)) if i not in reduced]
        dense = t.dense(x, (*kept, *sorted(reduced)))
        inner = math.prod(x.shape[i] for i in reduced)
        known = {name: settings[name] for name in ("correction",) if settings.get(name) is not None}
        return t.add("reduce", _out(node), function=function, input=dense.number, inner=inner, **known)

    return translate


def _with_position(function: str) -> Any:
    """For ``max`` and ``min``: with a dimension, they also return the positions."""

    def translate(t: _Translation, node: Any, x: Array, dim: int | None = None, *_: Any) -> Any:
        if dim is None:
            return t.add("reduce", _out(node), function=function, input=x.number, inner=x.size)
        dim = dim % len(x.shape)
        shape, inner = tuple(node.meta["val"][0].shape), x.shape[dim]
        dense = t.dense(x, (*(i for i in range(len(x.shape)) if i != dim), dim))
        names = (function, f"arg{function}")
        return [t.add("reduce", shape, function=name, input=dense.number, inner=inner) for name in names]

    return translate


def _var_mean(t: _Translation, node: Any, x: Array, dim: Any = None, **settings: Any) -> list[Array]:
    outputs = [_Output(node.meta["val"][i]) for i in range(2)]
    return [_reduction(name)(t, out, x, dim, **settings) for name, out in zip(("var", "mean"), outputs, strict=True)]


class _Output:
    """One of several outputs, as a node of its own."""

    def __init__(self, value: Any) -> None:
        self.meta = {"val": value}


def _cumsum(t: _Translation, node: Any, x: Array, dim: int, **_: Any) -> Array:  # noqa: ARG001
    dim = dim % len(x.shape)
    inner = math.prod(x.shape[dim + 1 :])
    return t.add("cumsum", x.shape, input=x.number, length=x.shape[dim], inner=inner)


# Products -------------------------------------------------------------------------------------------------------------


def _product(t: _Translation, a: Any, b: Any, bias: Any = None) -> Array:
    """a ``[..., m, k]`` times b ``[..., k, n]``, plus bias ``[n]``: rows of a with columns of b."""
    *batch, m, k = _shape(a)
    n = _shape(b)[-1]
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


def _addmm(t: _Translation, node: Any, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Array:
    if beta == alpha == 1 and _shape(bias) == _out(node)[-1:]:
        return _product(t, a, b, bias)
    product = _product(t, a, b)
    for factor, name in ((alpha, "product"), (beta, "bias")):
        if factor != 1 and name == "product":
            product = t.elementwise("mul", product.shape, product, float(factor))
        elif factor != 1:
            bias = t.elementwise("mul", _shape(bias), bias, float(factor))
    return t.elementwise("add", product.shape, product, bias)


def _linear(t: _Translation, node: Any, x: Array, weight: Any, bias: Any = None) -> Array:
    flat = Array(x.number, (x.size // x.shape[-1], x.shape[-1]))
    result = _product(t, flat, t.move(lambda each: each.mT, weight), bias)
    return Array(result.number, _out(node))


def _mv(t: _Translation, node: Any, a: Any, b: Any) -> Array:
    result = _product(t, a, t.move(lambda each: each.unsqueeze(-1), b))
    return Array(result.number, _out(node))


def _convolution(
    t: _Translation,
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
        raise ValueError("the likelihood uses a convolution in 3 dimensions; the explorer's JavaScript has 1 and 2")
    if not isinstance(weight, Tensor):
        raise ValueError("the likelihood uses a convolution whose kernel depends on z, which the explorer does not have")

    def two(values: Any, alone: int) -> list[int]:
        values = list(values) * (dims if len(values) == 1 else 1)
        return [alone] * (2 - dims) + [int(each) for each in values]

    out = _out(node)
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


# Movements ------------------------------------------------------------------------------------------------------------

_MOVES = """_unsafe_view alias clone contiguous detach diagonal expand flip lift_fresh_copy movedim narrow permute
pixel_shuffle repeat reshape roll select slice split split_with_sizes squeeze t transpose unbind unflatten unfold unsqueeze
view view_copy upsample_nearest1d upsample_nearest2d _upsample_nearest_exact1d _upsample_nearest_exact2d reflection_pad1d
reflection_pad2d replication_pad1d replication_pad2d""".split()


def _moving(t: _Translation, node: Any, x: Array, *args: Any, **kwargs: Any) -> Any:
    return t.move(lambda positions: node.target(positions, *args, **kwargs), x)


def _as_strided(t: _Translation, node: Any, x: Array, *args: Any) -> Array:
    laid_out = node.args[0].meta["val"]  # the operator sees the memory of its input, not its shape
    positions = torch.empty_strided(laid_out.shape, laid_out.stride(), dtype=torch.float64)
    positions.copy_(torch.arange(x.size, dtype=torch.float64).reshape(x.shape))
    return t.gathered(x, node.target(positions, *args))


def _index(t: _Translation, node: Any, x: Array, indices: Any) -> Any:
    if _has_array(indices):
        raise ValueError("the likelihood selects values by an index that depends on z, which the explorer does not have")
    return t.move(lambda positions: node.target(positions, indices), x)


def _pad(t: _Translation, node: Any, x: Array, pad: Any, value: float = 0.0) -> Array:
    positions = torch.arange(x.size, dtype=torch.float64).reshape(x.shape)
    return t.gathered(x, node.target(positions, pad, -1.0), float(value))


def _cat(t: _Translation, node: Any, parts: Any, dim: int = 0) -> Array:
    shape = _out(node)
    dim = dim % len(shape)
    parts = [part for part in parts if _shape(part) != (0,)]
    inner = math.prod(shape[dim + 1 :])
    return t.add(
        "cat",
        shape,
        inputs=[t.number(part) for part in parts],
        lengths=[_shape(part)[dim] * inner for part in parts],
        outer=math.prod(shape[:dim]),
    )


def _embedding(t: _Translation, node: Any, weight: Any, indices: Array, *_: Any) -> Array:
    return t.add(
        "embedding", _out(node), weight=t.number(weight), indices=indices.number, length=_shape(weight)[-1]
    )


def _full_like(t: _Translation, node: Any, *args: Any, **__: Any) -> Tensor:  # noqa: ARG001
    fill = {"zeros_like": 0.0, "ones_like": 1.0}.get(_name(node.target))
    return torch.full(_out(node), float(args[1] if fill is None else fill))


def _discretized_logistic_mean(t: _Translation, node: Any, loc: Array, scale: Any, levels: int) -> Array:
    inputs = [t.number(loc), t.number(scale)]
    return t.add("discretized logistic mean", _out(node), inputs=inputs, levels=levels)


_OPERATORS: dict[str, Any] = {
    **{name: _unary(name) for name in _UNARY},
    **{name: _binary(name) for name in _BINARY},
    **dict.fromkeys(_MOVES, _moving),
    "_to_copy": _to_dtype,
    "add": _scaled_sum(1.0),
    "addmm": _addmm,
    "amax": _reduction("max"),
    "amin": _reduction("min"),
    "any": _reduction("any"),
    "as_strided": _as_strided,
    "all": _reduction("all"),
    "argmax": _reduction("argmax"),
    "argmin": _reduction("argmin"),
    "bmm": lambda t, _, a, b: _product(t, a, b),
    "cat": _cat,
    "clamp": _clamp,
    "clamp_max": lambda t, node, x, bound: _clamp(t, node, x, None, bound),
    "clamp_min": lambda t, node, x, bound: _clamp(t, node, x, bound),
    "constant_pad_nd": _pad,
    "convolution": _convolution,
    "cumsum": _cumsum,
    "discretized_logistic_mean": _discretized_logistic_mean,
    "div": _div,
    "embedding": _embedding,
    "empty_like": _full_like,
    "full_like": _full_like,
    "index": _index,
    "index_select": lambda t, node, x, dim, index: t.move(lambda each: each.index_select(dim, index), x),
    "linear": _linear,
    "max": _with_position("max"),
    "mean": _reduction("mean"),
    "min": _with_position("min"),
    "mm": lambda t, _, a, b: _product(t, a, b),
    "mv": _mv,
    "ones_like": _full_like,
    "prod": _reduction("prod"),
    "rsub": lambda t, node, a, b: t.elementwise("sub", _out(node), b, a),
    "sub": _scaled_sum(-1.0),
    "sum": _reduction("sum"),
    "var": _reduction("var"),
    "var_mean": _var_mean,
    "where": lambda t, node, mask, a, b: t.elementwise("where", _out(node), mask, a, b),
    "zeros_like": _full_like,
}
