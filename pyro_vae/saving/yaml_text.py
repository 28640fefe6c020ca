"""Text in YAML, for the metadata of a model card."""

from __future__ import annotations

import json
from typing import Any


def to_yaml(value: Any) -> str:
    """Dictionaries, lists, strings and finite numbers in YAML. Strings are in quotes, which keep all their characters.

    Raises:
        TypeError: If a value is of another type.
        ValueError: If a number is not finite.
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        return [line for key, each in value.items() for line in _entry(f"{key}:", each)]
    if isinstance(value, list) and value:
        return [line for each in value for line in _item(each)]
    return [_scalar(value)]


def _entry(key: str, value: Any) -> list[str]:
    is_nested = isinstance(value, dict | list) and value
    return [key, *(f"  {line}" for line in _lines(value))] if is_nested else [f"{key} {_scalar(value)}"]


def _item(value: Any) -> list[str]:
    first, *others = _lines(value)
    return [f"- {first}", *(f"  {line}" for line in others)]


def _scalar(value: Any) -> str:
    """As JSON, which is also YAML; characters that YAML does not allow are left out."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return "".join(character for character in text if character.isprintable())
