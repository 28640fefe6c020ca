"""Whether data are in a support, for the price of reading them once or twice."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.supports import Counts, FiniteReals, Levels

__all__ = ["surely_inside"]


class _Range(NamedTuple):
    least: float = -math.inf
    most: float = math.inf
    is_open: bool = False  # whether the least itself is outside, and the most
    is_integral: bool = False


_KINDS: dict[type, _Range] = {
    type(constraints.real): _Range(),
    FiniteReals: _Range(),
    type(constraints.positive): _Range(is_open=True),
    type(constraints.nonnegative): _Range(),
    type(constraints.unit_interval): _Range(),
    type(constraints.half_open_interval(0, 1)): _Range(is_open=True),
    Levels: _Range(0.0, 1.0),
    Counts: _Range(0.0, is_integral=True),
    type(constraints.boolean): _Range(0.0, 1.0, is_integral=True),
    type(constraints.nonnegative_integer): _Range(is_integral=True),
    type(constraints.integer_interval(0, 1)): _Range(is_integral=True),
}


def surely_inside(x: Tensor, support: Any) -> bool:
    """Whether all values are known to be in a support; False also where their range does not tell.

    Args:
        x: The data, ``[n, *event]``.
        support: The constraint on them.
    """
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    may_be_missing = hasattr(support, "unless_missing")  # as under an Incomplete likelihood
    expected = _range(support.unless_missing if may_be_missing else support)
    if expected is None or x.is_complex() or x.dtype == torch.bool or not x.numel():
        return False
    least, most = _least_and_most(x, may_be_missing)
    if not (math.isfinite(least) and math.isfinite(most)):  # NaN is not
        return False
    if not expected.least <= least <= most <= expected.most:
        return False
    if expected.is_open and (least == expected.least or most == expected.most):
        return False
    if isinstance(support, Levels):
        steps = x * (support.levels - 1)
        return max(map(abs, _least_and_most(steps.sub_(steps.round())))) < 0.01
    return not (expected.is_integral and x.is_floating_point()) or not x.frac().count_nonzero()


def _range(support: Any) -> _Range | None:
    """What values are between; None if that is not known, or not what the support is."""
    if hasattr(support, "range"):
        return _Range(*support.range)
    known = _KINDS.get(type(support))
    if known is None:
        return None
    bounds = [getattr(support, name, bound) for name, bound in zip(_BOUNDS, known[:2], strict=True)]
    if any(isinstance(bound, Tensor) and bound.numel() > 1 for bound in bounds):
        return None
    return known._replace(least=float(bounds[0]), most=float(bounds[1]))


_BOUNDS = ("lower_bound", "upper_bound")


def _least_and_most(x: Tensor, may_be_missing: bool = False) -> tuple[float, float]:
    if not may_be_missing:
        least, most = torch.aminmax(x)
        return least.item(), most.item()
    inf = math.inf
    least, most = x.nan_to_num(inf, inf, -inf).min(), x.nan_to_num(-inf, inf, -inf).max()
    return least.item(), most.item()
