"""Defaults of options as help shows them, where the value itself says nothing."""

from __future__ import annotations

from typing import Any

from tyro.conf import arg


def by_default(text: str) -> Any:
    """An annotation for an option: help shows this text as its default."""
    return arg(help_behavior_hint=f"(default: {text})")
