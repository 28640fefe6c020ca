"""The base distribution of an independent one."""

from __future__ import annotations

from typing import Any

from pyro.contrib.zuko import ZukoToPyro
from torch.distributions import Independent


def split_independent(distribution: Any) -> tuple[Any, int]:
    """The distribution inside ``Independent`` and Pyro's wrappers, and the number of dimensions they made events of."""
    event_dims = 0
    while isinstance(distribution, (Independent, ZukoToPyro)):
        if isinstance(distribution, Independent):
            event_dims += distribution.reinterpreted_batch_ndims
            distribution = distribution.base_dist
        else:
            distribution = distribution.dist
    return distribution, event_dims
