"""Replacements for operators of torch that ONNX lacks or computes less accurately.

The translation of torch writes log1p(x) as log(1 + x), logaddexp as log(exp + exp) and log(sigmoid(x)) as it stands:
for small x, or for numbers beyond 88 in float32, these lose all digits or overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_SHIFT = 10
# The coefficients of 1 / z, 1 / z^3, ... in Stirling's series of log Gamma(z). For z of at least 10 the remainder is
# below 1e-15.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


def _log1p(x: Tensor) -> Tensor:
    """log(1 + x), with the rounding error of 1 + x corrected (Higham 2002, section 1.14.1)."""
    u = 1 + x
    is_one, is_infinite = u == 1, u == math.inf
    return torch.where(is_one, x, u.log() * torch.where(is_infinite, 1.0, x / torch.where(is_one, 1.0, u - 1)))


def _expm1(x: Tensor) -> Tensor:
    """exp(x) - 1, likewise."""
    u = x.exp()
    is_one, is_far = u == 1, x.abs() > 1
    log_u = torch.where(is_one | is_far, 1.0, u).log()
    return torch.where(is_far, u - 1, torch.where(is_one, x, (u - 1) * (x / torch.where(is_one | is_far, 1.0, log_u))))


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    largest = torch.maximum(a, b)
    return torch.where(a == b, largest + math.log(2), largest + _log1p((-(a - b).abs()).exp()))


def _log_sigmoid(x: Tensor) -> Tensor:
    return x.clamp_max(0) - _log1p((-x.abs()).exp())


def _softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    scaled = beta * x
    smooth = (scaled.clamp_min(0) + _log1p((-scaled.abs()).exp())) / beta
    return torch.where(scaled > threshold, x, smooth)


def _silu(x: Tensor) -> Tensor:
    """x sigmoid(x), in a form that onnxruntime 1.20 does not take for an operator that it has only for float32."""
    small = (-x.abs()).exp()
    return torch.where(x < 0, x * small, x) / (1 + small)


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    largest, smallest = torch.maximum(a.abs(), b.abs()), torch.minimum(a.abs(), b.abs())
    ratio = smallest / torch.where(largest == 0, 1.0, largest)
    return largest * (1 + ratio * ratio).sqrt()


def _lgamma(x: Tensor) -> Tensor:
    """log |Gamma(x)| for x above -10, by Stirling's series at larger arguments (NaN for smaller x)."""
    is_small = x < _SHIFT
    shifts = torch.arange(_SHIFT, dtype=x.dtype, device=x.device)
    product = (torch.where(is_small, x, 1.0).unsqueeze(-1) + shifts).prod(-1)
    z = torch.where(is_small, x + _SHIFT, x)
    inverse = 1 / z
    square = inverse * inverse
    series = _STIRLING[-1] * square
    for coefficient in reversed(_STIRLING[1:-1]):
        series = (series + coefficient) * square
    shifted = (z - 0.5) * z.log() - z + 0.5 * math.log(2 * math.pi) + inverse * (series + _STIRLING[0])
    return torch.where(x == math.inf, x, shifted - torch.where(is_small, product.abs().log(), 0.0))


def _solve_triangular(a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """Solves a x = b, one row of x after the other."""
    if not left:  # x a = b is a^T x^T = b^T
        return _solve_triangular(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    size = a.shape[-1]
    b = b.expand(*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:])
    rows: dict[int, Tensor] = {}
    for i in reversed(range(size)) if upper else range(size):
        row = b[..., i, :]
        if rows:
            known = sorted(rows)
            solved = torch.stack([rows[k] for k in known], dim=-2)
            row = row - (a[..., i, known[0] : known[-1] + 1].unsqueeze(-1) * solved).sum(-2)
        rows[i] = row if unitriangular else row / a[..., i, i, None]
    return torch.stack([rows[i] for i in range(size)], dim=-2)


def _cholesky_ex(a: Tensor, *, upper: bool = False, check_errors: bool = False) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """The Cholesky factor of positive definite matrices, one column after the other."""
    size = a.shape[-1]
    columns: list[Tensor] = []
    for j in range(size):
        column = a[..., :, j]
        for other in columns:
            column = column - other * other[..., j, None]
        below = torch.arange(size, device=a.device) >= j
        columns.append(torch.where(below, column, 0.0) / column[..., j, None].sqrt())
    factor = torch.stack(columns, dim=-1)
    return factor.mT if upper else factor, torch.zeros(a.shape[:-2], dtype=torch.int32, device=a.device)


def _cholesky(a: Tensor, *, upper: bool = False) -> Tensor:
    return _cholesky_ex(a, upper=upper)[0]


def _cholesky_solve(b: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    """Solves L L^T x = b for the Cholesky factor L, or its transpose."""
    lower = factor.mT if upper else factor
    return _solve_triangular(lower.mT, _solve_triangular(lower, b, upper=False), upper=True)


def _mul(a: Any, b: Any) -> Any:
    """Products of masks and numbers, as products of numbers: torch 2.7 fails to find this out in some programs."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or (a.dtype == torch.bool) == (b.dtype == torch.bool):
        return NotImplemented  # it stays as it is
    dtype = torch.result_type(a, b)
    return a.to(dtype) * b.to(dtype)


def _index_put(x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False) -> Any:
    """x[..., i, j] = values, by one index into the first dimension: the translation of onnxscript 0.2 has no other."""
    places = [index for index in indices if index is not None]
    kept = len(indices) - len(places)
    are_last = len(indices) == x.dim() and all(index is None for index in indices[:kept])
    if len(indices) == 1 or not are_last or any(index.dim() != 1 or index.dtype == torch.bool for index in places):
        return NotImplemented  # it stays as it is
    sizes, others = x.shape[kept:], x.shape[:kept]
    place = torch.zeros_like(places[0])
    for size, index in zip(sizes, places, strict=True):
        place = place * size + torch.where(index < 0, index + size, index)
    values = values.expand(*others, len(place)).permute(kept, *range(kept))
    flat = x.permute(*range(kept, x.dim()), *range(kept)).reshape(math.prod(sizes), *others)
    found = flat.index_put([place], values, accumulate).reshape(*sizes, *others)
    return found.permute(*range(len(sizes), x.dim()), *range(len(sizes)))


def _tril_indices(row: int, col: int, offset: int = 0, **options: Any) -> Tensor:
    """The places on and below a diagonal, row by row. torch divides integers for it, for which ONNX had no operator."""
    options = {name: options[name] for name in ("dtype", "device") if name in options}
    length = (torch.arange(row, **options) + (offset + 1)).clamp(0, col)  # of each row
    end = length.cumsum(0)
    place = torch.arange(sum(min(max(i + offset + 1, 0), col) for i in range(row)), **options)
    rows = (place.reshape(-1, 1) >= end).sum(-1)
    return torch.stack([rows, place - (end - length)[rows]])


aten = torch.ops.aten

#: Replacements of operators before the translation to ONNX.
REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    aten.log1p.default: _log1p,
    aten.expm1.default: _expm1,
    aten.special_expm1.default: _expm1,
    aten.logaddexp.default: _logaddexp,
    aten.log_sigmoid.default: _log_sigmoid,
    aten.hypot.default: _hypot,
    aten.lgamma.default: _lgamma,
    aten.linalg_solve_triangular.default: _solve_triangular,
    aten.linalg_cholesky_ex.default: _cholesky_ex,
    aten.linalg_cholesky.default: _cholesky,
    aten.cholesky_solve.default: _cholesky_solve,
    aten.tril_indices.default: _tril_indices,
    aten.index_put.default: _index_put,
}

#: Replacements for operators that onnxruntime has only for float32.
IN_FLOAT64: dict[Any, Callable[..., Any]] = {aten.softplus.default: _softplus, aten.silu.default: _silu}

#: A replacement for programs that multiply masks by numbers.
OF_MASKS: dict[Any, Callable[..., Any]] = {aten.mul.Tensor: _mul}
