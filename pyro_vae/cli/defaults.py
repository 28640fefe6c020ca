"""How options are parsed, and their defaults as help shows them, where the value itself says nothing."""

from __future__ import annotations

from typing import Any

from tyro.conf import DisallowNone, FlagCreatePairsOff, arg

#: For tyro: a flag has no opposite, and None cannot be given as a value.
CONFIG = (FlagCreatePairsOff, DisallowNone)


def by_default(text: str) -> Any:
    """An annotation for an option: help shows this text as its default."""
    return arg(help_behavior_hint=f"(default: {text})")
