"""Draws of latents from a program, which stops as soon as they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor


def latent_draws(program: Callable[..., Any], x: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """Runs a program until it has drawn some sites, since a decoder after them costs more than the draws.

    Args:
        program: Called with x.
        x: Data, ``[n, *event]``.
        names: The names of the sites.

    Returns:
        The draws by site.
    """
    until = _Until(names)
    with suppress(_AllDrawnError), until:
        program(x)
    return until.drawn


class _AllDrawnError(Exception):
    """Stops the program."""


class _Until(Messenger):
    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names, self.drawn = set(names), dict[str, Tensor]()

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            self.drawn[msg["name"]] = msg["value"]
            if len(self.drawn) == len(self.names):
                raise _AllDrawnError
