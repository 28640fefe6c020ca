"""Programs at the means of their distributions."""

from __future__ import annotations

from typing import Any

from pyro import poutine
from pyro.poutine.messenger import Messenger

__all__ = ["AtMeans"]


class AtMeans(Messenger):
    """Puts the mean of its distribution, given the sites before it, in the place of each draw.

    Raises:
        NotImplementedError: If a distribution has no mean in closed form, as that of a flow.
    """

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["value"] is not None or poutine.util.site_is_subsample(msg):
            return
        try:
            msg["value"] = msg["fn"].mean
        except NotImplementedError as error:
            raise NotImplementedError(
                f"site {msg['name']!r} has a distribution without a mean in closed form"
            ) from error
        msg["done"] = True
