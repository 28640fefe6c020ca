"""Losses whose gradients go through the draws of the guide, and a check that these are reparameterized."""

from __future__ import annotations

from typing import Any

from pyro.infer import ELBO, Trace_MMD, TraceMeanField_ELBO, TraceTailAdaptive_ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample


def goes_through_draws(loss: Any) -> bool:
    """Whether a loss of Pyro, or a loss that wraps one, needs draws with gradients."""
    loss = getattr(loss, "__self__", loss)
    while not isinstance(loss, ELBO) and hasattr(loss, "loss"):
        loss = loss.loss
    return isinstance(loss, TraceMeanField_ELBO | TraceTailAdaptive_ELBO | Trace_MMD)


def check_reparameterized(name: str, site: Any) -> None:
    """Checks a latent site of a guide.

    Raises:
        ValueError: If its draws have no gradient.
    """
    if not site["fn"].has_rsample and not site["infer"].get("is_auxiliary"):
        distribution = site["fn"]
        while hasattr(distribution, "base_dist"):
            distribution = distribution.base_dist
        raise ValueError(
            f"site {name!r} of the guide is not reparameterized ({type(distribution).__name__} has no rsample), so its "
            "draws have no gradient, which the loss needs; Trace_ELBO, ScoreFunction and WakeWake do without"
        )


class Reparameterized(Messenger):
    """Checks every draw of a guide. Pyro has this check too, but only if its validation is on.

    Raises:
        ValueError: When the guide is called, if a draw has no gradient.
    """

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg):
            check_reparameterized(msg["name"], msg)
