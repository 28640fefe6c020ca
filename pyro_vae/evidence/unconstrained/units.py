"""Location and scale of a distribution, in coordinates without bounds."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from torch import Tensor
from torch.distributions import IndependentTransform, LogNormal, Transform

from pyro_vae.distributions.bijections import is_unbounded
from pyro_vae.distributions.independent import split_independent


def units(fn: Any, onto: Transform) -> tuple[Tensor, Tensor] | None:
    """Where the values of a distribution lie on the real line, and how far apart.

    Args:
        fn: A distribution.
        onto: The map from real vectors to its values.

    Returns:
        Its own location and scale if it has them. Otherwise mean and standard deviation, mapped to the real line to
        first order, or 0 and 1 where they are not finite. None if they are not known, or if the map mixes elements.
    """
    while isinstance(onto, IndependentTransform):
        onto = onto.base_transform
    base = _inside(fn)
    if onto.domain.event_dim > 0:
        return None
    if isinstance(base, LogNormal) or (is_unbounded(base) and hasattr(base, "loc") and hasattr(base, "scale")):
        return base.loc, base.scale
    try:
        mean, stddev = base.mean, base.stddev
    except (NotImplementedError, AttributeError):
        return None
    location = onto.inv(mean)
    scale = stddev / onto.log_abs_det_jacobian(location, mean).exp()
    good = location.isfinite() & scale.isfinite() & (scale > 0)
    return torch.where(good, location, 0.0), torch.where(good, scale, 1.0)


def _inside(fn: Any) -> Any:
    """The distribution inside of wrappers that change no values."""
    inner, _ = split_independent(fn)
    return _inside(inner.base_dist) if isinstance(inner, MaskedDistribution | ExpandedDistribution) else inner
