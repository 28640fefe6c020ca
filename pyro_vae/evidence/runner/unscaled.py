"""Programs without their scales."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger


class Unscaled(Messenger):
    """Removes the scales of a program: they weight a loss, and are no part of p or q."""

    def _pyro_sample(self, msg: Any) -> None:
        msg["scale"] = 1.0
