"""The mean of each distribution instead of a draw from it."""

from __future__ import annotations

from typing import Any

from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution


class AtMeans(Messenger):
    """Sets each latent site of a program to the mean of its distribution, given the sites before it.

    Args:
        or_draw: Whether a site whose distribution has no mean in closed form, such as a flow, is drawn instead.

    Raises:
        NotImplementedError: If there is such a site, and it is not to be drawn.
    """

    def __init__(self, or_draw: bool = False) -> None:
        super().__init__()
        self._or_draw = or_draw

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["value"] is not None or poutine.util.site_is_subsample(msg):
            return
        fn, name = msg["fn"], f"site {msg['name']!r}, a "
        msg["value"] = mean_or_draw(fn) if self._or_draw else mean_of(fn, name)
        msg["done"] = True


def mean_of(distribution: Distribution, name: str = "") -> Tensor:
    """The mean of a distribution.

    Args:
        distribution: The distribution.
        name: What an error says before the class of the distribution.

    Raises:
        NotImplementedError: If it has no mean in closed form.
    """
    try:
        return distribution.mean
    except NotImplementedError as error:
        raise NotImplementedError(
            f"{name}{type(distribution).__name__} has no mean in closed form; codes(x) draws from it"
        ) from error


def mean_or_draw(distribution: Distribution) -> Tensor:
    """The mean of a distribution if it has one in closed form, else (for a flow) a draw."""
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample()
