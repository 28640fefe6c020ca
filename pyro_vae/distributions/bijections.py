"""Bijections from real vectors to the values of a distribution, which its ``support`` does not always describe."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro import distributions as dist
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch import distributions as torch_distributions
from torch.distributions import biject_to, constraints, transforms
from torch.distributions.transforms import ComposeTransform, IndependentTransform, Transform
from torch.nn.functional import softplus

from pyro_vae.distributions.independent import split_independent
from pyro_vae.distributions.zuko_import import zuko
from pyro_vae.system.private_apis import inverse_of

ATOMS = (dist.Delta, dist.Empirical, dist.ZeroInflatedDistribution)
ROUNDED = (dist.RelaxedBernoulliStraightThrough, dist.RelaxedOneHotCategoricalStraightThrough)
TORUS = (dist.SineBivariateVonMises, dist.SineSkewed)
MIXTURES = (torch_distributions.MixtureSameFamily, zuko.distributions.Mixture)


def bijection(fn: Any) -> Transform:
    """The bijection from real vectors to the values of a distribution: all of them, and no others.

    It is derived from the construction of the distribution. The ``support`` of torch is not enough: for a
    ``TransformedDistribution`` it is the codomain of the last transform, for angles it is the real line, and zuko's
    flows have none.

    Args:
        fn: A distribution of torch, Pyro or zuko.

    Raises:
        ValueError: If there is no such map. The message continues after the name of the site.
    """
    if isinstance(fn, ZukoToPyro):
        return bijection(fn.dist)
    if isinstance(fn, torch_distributions.Independent):
        return _independent(bijection(fn.base_dist), fn.reinterpreted_batch_ndims)
    if isinstance(fn, MaskedDistribution | ExpandedDistribution):
        return bijection(fn.base_dist)
    if isinstance(fn, dist.Rejector):
        return bijection(fn.propose)
    if isinstance(fn, ATOMS):
        raise ValueError(f"is of class {type(fn).__name__}, whose single points have mass; gradients need densities")
    if isinstance(fn, ROUNDED):
        raise ValueError(
            f"is of class {type(fn).__name__}, which draws discrete values; gradients need continuous ones"
        )
    if isinstance(fn, torch_distributions.VonMises):
        return _Angle()
    if isinstance(fn, TORUS):
        return _independent(_Angle(), 1)
    if isinstance(fn, MIXTURES):
        return _of_mixture(_components(fn))
    if _is_plainly_transformed(fn):
        return _transformed(fn.base_dist, fn.transforms)
    if type(fn).__module__.startswith("zuko."):
        return _of_zuko(fn)
    return _onto(_support(fn))


def is_unbounded(fn: Any) -> bool:
    """Whether the values of a distribution are all real vectors."""
    try:
        return _is_identity(bijection(fn))
    except ValueError:
        return False


def _support(fn: Any) -> Any:
    try:
        return fn.support
    except NotImplementedError:  # unknown, so we assume all real vectors
        return constraints.independent(constraints.real, len(fn.event_shape))


def _onto(support: Any) -> Transform:
    """The map to all values that a constraint allows."""
    if isinstance(support, constraints.independent):
        return _independent(_onto(support.base_constraint), support.reinterpreted_batch_ndims)
    if support.is_discrete:
        raise ValueError("is discrete; gradients need continuous latents")
    bounds = _bounds(support)
    # Whether tensors are finite is not asked: they may depend on latents, and then no recording could go on from there.
    if bounds is not None and not all(not isinstance(bound, Tensor) and math.isfinite(bound) for bound in bounds):
        return _Between(*bounds)
    try:
        return biject_to(support)
    except NotImplementedError as error:
        raise ValueError(f"has support {support}, which has no bijection from real vectors") from error


def _bounds(support: Any) -> tuple[Any, Any] | None:
    """The least and the greatest value of an interval."""
    if isinstance(support, constraints.interval | constraints.half_open_interval):
        return support.lower_bound, support.upper_bound
    return None


def _independent(transform: Transform, dims: int) -> Transform:
    return IndependentTransform(transform, dims) if dims else transform


def _of_mixture(components: Any) -> Transform:
    """The map to the values of any component; components are along the last batch dimension."""
    inner, dims = split_independent(components)
    if isinstance(inner, torch_distributions.VonMises):
        return _independent(_Angle(), dims)
    return _onto(_support_of_mixture(components))


def _support_of_mixture(components: Any) -> Any:
    inner, dims = split_independent(components)
    if isinstance(inner, MIXTURES):
        support = _support_of_mixture(_components(inner))
    elif _is_plainly_transformed(inner):
        support = _support_of_transformed(inner)
    else:
        support = _support(inner)
    return _hull(constraints.independent(support, dims), 0)


def _components(mixture: Any) -> Any:
    return mixture.base if isinstance(mixture, zuko.distributions.Mixture) else mixture.component_distribution


def _hull(support: Any, event_dims: int) -> Any:
    """The smallest interval that contains those of all components. Other supports are the same for all of them."""
    if isinstance(support, constraints.independent):
        dims = support.reinterpreted_batch_ndims
        return constraints.independent(_hull(support.base_constraint, event_dims + dims), dims)

    def over_components(bound: Any, least: bool) -> Any:
        if not isinstance(bound, Tensor) or bound.ndim <= event_dims:
            return bound
        return bound.amin(-1 - event_dims) if least else bound.amax(-1 - event_dims)

    if isinstance(support, constraints.greater_than | constraints.greater_than_eq):
        return type(support)(over_components(support.lower_bound, least=True))
    if isinstance(support, constraints.less_than):
        return constraints.less_than(over_components(support.upper_bound, least=False))
    if (bounds := _bounds(support)) is not None:
        return constraints.interval(over_components(bounds[0], least=True), over_components(bounds[1], least=False))
    return support


def _is_plainly_transformed(fn: Any) -> bool:
    """Whether the only known support is the codomain of the last transform."""
    plain = torch_distributions.TransformedDistribution
    return isinstance(fn, plain) and type(fn).support is plain.support


def _transformed(base: Any, steps: list[Any]) -> Transform:
    """The map to the base, followed by the steps. If all of them map real vectors to real vectors, the identity."""
    flat = [part for step in steps for part in _parts(step)]
    for part in flat:
        if not part.bijective:
            raise ValueError(f"is transformed by {type(part).__name__}, which is not one-to-one")
    start = bijection(base)
    if _is_identity(start) and all(_is_real(part.domain) and _is_real(part.codomain) for part in flat):
        return start
    return ComposeTransform([start, *steps])


def _support_of_transformed(fn: Any) -> Any:
    """The codomain of the last transform, if the other steps cover its domain."""
    flat = [part for step in fn.transforms for part in _parts(step)]
    spaces = [part.domain for part in flat] + [part.codomain for part in flat[:-1]]
    if not _is_identity(bijection(fn.base_dist)) or not all(map(_is_real, spaces)):
        raise ValueError("is a mixture of transformed distributions, whose values are not known")
    return fn.support


def _parts(step: Any) -> list[Any]:
    """The parts of a composed transform."""
    if isinstance(step, ComposeTransform):
        return [part for each in step.parts for part in _parts(each)]
    if isinstance(step, zuko.transforms.ComposedTransform):
        return [part for each in step.transforms for part in _parts(each)]
    if isinstance(step, IndependentTransform):
        return _parts(step.base_transform)
    if isinstance(step, zuko.transforms.DependentTransform):
        return _parts(step.base)
    if (inverse := inverse_of(step)) is not None:
        inside = _parts(inverse)
        return [step] if inside == [inverse] else [part.inv for part in reversed(inside)]
    return [step]


def _is_real(constraint: Any) -> bool:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint is constraints.real


def _is_identity(transform: Transform) -> bool:
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return transform == transforms.identity_transform


def _of_zuko(fn: Any) -> Transform:
    if isinstance(fn, zuko.distributions.NormalizingFlow):
        return _transformed(fn.base, [fn.transform.inv])
    if isinstance(fn, zuko.distributions.Joint):
        return _side_by_side([bijection(each) for each in fn.marginals], [each.event_shape for each in fn.marginals])
    if isinstance(fn, zuko.distributions.Truncated):
        return _Between(*(fn.base.icdf(bound) for bound in (fn.uniform.low, fn.uniform.high)))
    if isinstance(fn, zuko.distributions.Minimum):  # or the maximum
        return bijection(fn.base)
    if isinstance(fn, zuko.distributions.Sort):
        return _sorted(bijection(fn.base), fn.descending)
    return _onto(_support(fn))


def _side_by_side(parts: list[Transform], shapes: list[torch.Size]) -> Transform:
    """The map for concatenated vectors."""
    lengths = [shape.numel() for shape in shapes]
    for part, shape, length in zip(parts, shapes, lengths, strict=True):
        if len(shape) > 1 or part.inverse_shape((length,)) != (length,):
            raise ValueError("joins distributions of more than single numbers; expected a site for each of them")
    return transforms.CatTransform([_independent(part, 1 - part.domain.event_dim) for part in parts], -1, lengths)


def _sorted(each: Transform, descending: bool) -> Transform:
    """The map for sorted numbers, each of which has an increasing map."""
    try:
        increases = all(bool((torch.as_tensor(part.sign) == 1).all()) for part in _parts(each))
    except NotImplementedError:
        increases = False
    if not increases:
        raise ValueError("sorts numbers whose bijection from real numbers is not known to be increasing")
    turned = [transforms.AffineTransform(0.0, -1.0, event_dim=1)] if descending else []
    return ComposeTransform([dist.transforms.OrderedTransform(), *turned, _independent(each, 1)])


class _Between(Transform):
    """The increasing map from the real line to intervals, whose bounds may be infinite."""

    domain = constraints.real
    bijective = True
    sign = 1

    def __init__(self, lower: Any, upper: Any) -> None:
        super().__init__()
        self.lower, self.upper = torch.broadcast_tensors(torch.as_tensor(lower), torch.as_tensor(upper))
        self.above, self.below = self.lower.isfinite(), self.upper.isfinite()
        self.codomain = constraints.interval(self.lower, self.upper)
        self._from, self._to = (torch.where(each.isfinite(), each, 0.0) for each in (self.lower, self.upper))
        self._width = torch.where(self.above & self.below, self._to - self._from, 1.0)

    def _choose(self, both: Tensor, above: Tensor, below: Tensor, neither: Tensor) -> Tensor:
        one_side = torch.where(self.above, above, torch.where(self.below, below, neither))
        return torch.where(self.above & self.below, both, one_side)

    def _call(self, x: Tensor) -> Tensor:
        both = self._from + self._width * transforms.SigmoidTransform()(x)
        return self._choose(both, self._from + x.exp(), self._to - (-x).exp(), x)

    def _inverse(self, y: Tensor) -> Tensor:
        both = transforms.SigmoidTransform().inv((y - self._from) / self._width)
        return self._choose(both, (y - self._from).log(), -(self._to - y).log(), y)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002
        both = self._width.log() - softplus(-x) - softplus(x)
        return self._choose(both, x, -x, torch.zeros_like(x))


class _Angle(Transform):
    """The map from the real line to the circle, as angles from -pi to pi; other angles are taken modulo 2 pi."""

    domain = constraints.real
    codomain = constraints.interval(-math.pi, math.pi)
    bijective = True
    sign = 1

    def _call(self, x: Tensor) -> Tensor:
        return 2 * math.pi * transforms.SigmoidTransform()(x) - math.pi

    def _inverse(self, y: Tensor) -> Tensor:
        turns = (y / (2 * math.pi) + 0.5).remainder(1.0)
        return transforms.SigmoidTransform().inv(turns)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002
        return math.log(2 * math.pi) - softplus(-x) - softplus(x)
