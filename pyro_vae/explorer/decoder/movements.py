"""Operators that only move values."""

from __future__ import annotations

import math
from typing import Any

import torch

from pyro_vae.explorer.decoder.translation import Array, Translation, has_array, out_shape, shape_of

MOVES = [
    "_unsafe_view", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "alias", "clone", "contiguous",
    "detach", "diagonal", "expand", "flip", "lift_fresh_copy", "movedim", "narrow", "permute", "pixel_shuffle",
    "reflection_pad1d", "reflection_pad2d", "repeat", "replication_pad1d", "replication_pad2d", "reshape",
    "roll", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten",
    "unfold", "unsqueeze", "upsample_nearest1d", "upsample_nearest2d", "view", "view_copy",
]  # fmt: skip


def _moving(t: Translation, node: Any, x: Array, *args: Any, **kwargs: Any) -> Any:
    return t.move(lambda positions: node.target(positions, *args, **kwargs), x)


def _as_strided(t: Translation, node: Any, x: Array, *args: Any) -> Array:
    laid_out = node.args[0].meta["val"]  # the operator sees the memory of its input, not its shape
    positions = torch.empty_strided(laid_out.shape, laid_out.stride(), dtype=torch.float64)
    positions.copy_(torch.arange(x.size, dtype=torch.float64).reshape(x.shape))
    return t.gathered(x, node.target(positions, *args))


def _index(t: Translation, node: Any, x: Array, indices: Any) -> Any:
    if has_array(indices):
        raise ValueError(
            "the likelihood selects values by an index that depends on z, which the explorer does not have"
        )
    return t.move(lambda positions: node.target(positions, indices), x)


def _pad(t: Translation, node: Any, x: Array, pad: Any, value: float = 0.0) -> Array:
    positions = torch.arange(x.size, dtype=torch.float64).reshape(x.shape)
    return t.gathered(x, node.target(positions, pad, -1.0), float(value))


def _cat(t: Translation, node: Any, parts: Any, dim: int = 0) -> Array:
    shape = out_shape(node)
    dim = dim % len(shape)
    parts = [part for part in parts if shape_of(part) != (0,)]
    inner = math.prod(shape[dim + 1 :])
    return t.add(
        "cat",
        shape,
        inputs=[t.number(part) for part in parts],
        lengths=[shape_of(part)[dim] * inner for part in parts],
        outer=math.prod(shape[:dim]),
    )


def _embedding(t: Translation, node: Any, weight: Any, indices: Array, *_: Any) -> Array:
    return t.add(
        "embedding", out_shape(node), weight=t.number(weight), indices=indices.number, length=shape_of(weight)[-1]
    )


OPERATORS: dict[str, Any] = {
    **dict.fromkeys(MOVES, _moving),
    "as_strided": _as_strided,
    "cat": _cat,
    "constant_pad_nd": _pad,
    "embedding": _embedding,
    "index": _index,
    "index_select": lambda t, _, x, dim, index: t.move(lambda each: each.index_select(dim, index), x),
}
