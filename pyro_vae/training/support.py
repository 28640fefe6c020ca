"""Fast checks that data are in a support, which read them once or twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import constraints

from pyro_vae.distributions.supports import Counts, FiniteReals, Levels
from pyro_vae.system.private_apis import validates
from pyro_vae.weights import sample_sites


class _Range(NamedTuple):
    least: float = -math.inf
    most: float = math.inf
    is_open: bool = False  # whether the bounds themselves are outside
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
    """Whether all values are known to be in a support. False also if their range is not enough to tell.

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
    """The range of the values; None if it is not known, or does not define the support."""
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


class Observed(NamedTuple):
    """An argument that the model observes unchanged, at a site whose support is constant."""

    argument: int  #: The position of the tensor in a batch.
    site: str
    support: Any

    def check(self, x: Tensor) -> None:
        """Checks that the values are in the support.

        Raises:
            ValueError: If not.
        """
        if surely_inside(x, self.support) or (inside := self.support.check(x)).all():
            return
        index = tuple((~inside).nonzero()[0].tolist())
        raise ValueError(
            f"the data have {int((~inside).sum())} values outside the support of site {self.site!r}, {self.support}: "
            f"the first is {x[index].tolist()} at {list(index)}"
        )


def observed(model_trace: Trace, inputs: Sequence[Tensor]) -> list[Observed]:
    """The inputs of a model that it observes unchanged, found in the trace of a run."""
    found = []
    for name, site in sample_sites(model_trace):
        value = site["value"]
        support = None if site["mask"] is not None or not site["is_observed"] else _constant_support(site["fn"])
        if support is None or not isinstance(value, Tensor):
            continue
        for i, x in enumerate(inputs):
            if (x.data_ptr(), x.numel(), x.dtype) == (value.data_ptr(), value.numel(), value.dtype):
                found.append(Observed(i, name, support))
    return found


def _constant_support(distribution: Any) -> Any:
    """The support of each value of a distribution; None if it depends on parameters, or is not to be checked."""
    inner = distribution
    while inner is not None:
        if isinstance(inner, MaskedDistribution) or not validates(inner):
            return None
        inner = getattr(inner, "base_dist", None)
    try:
        support = distribution.support
    except NotImplementedError:
        return None
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    is_constant = not any(isinstance(each, Tensor) for each in vars(support).values())
    return support if is_constant and support.event_dim == 0 and isinstance(support, constraints.Constraint) else None
