"""The difference between two modules, except for their weights."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from pyro_vae.system.private_apis import held_by, unsaved_buffers

_APART = ("training", "_parameters", "_buffers", "_modules")  # compared in other ways, or not at all


def difference(module: nn.Module, other: nn.Module) -> str | None:
    """The difference between a module and one created with the same arguments, in words; None if there is none.

    Values of weights and training mode are not compared.
    """
    if _shared(module) != _shared(other):
        return "it has other modules, or shares others, than its arguments make"
    theirs = dict(other.named_modules())
    for name, mine in module.named_modules():
        facts, others = _facts(mine), _facts(theirs[name])
        for fact in facts.keys() | others.keys():
            if fact not in facts or fact not in others or facts[fact] != others[fact]:
                return f"{name or 'it'}, a {type(mine).__name__}, has another {fact} than its arguments make"
    return None


def _shared(module: nn.Module) -> dict[str, str]:
    """Modules and parameters by all their names, each with its first name."""
    first: dict[int, str] = {}
    named = [*module.named_modules(remove_duplicate=False), *module.named_parameters(remove_duplicate=False)]
    return {name: first.setdefault(id(each), name) for name, each in named}


def _facts(module: nn.Module) -> dict[str, Any]:
    attributes = {name: value for name, value in vars(module).items() if name not in _APART}
    facts = {"class": type(module)} | {name: _fact(name, value) for name, value in attributes.items()}
    parameters, buffers, _ = held_by(module)
    unsaved = unsaved_buffers(module)
    for name, value in (parameters | buffers).items():
        facts[name] = value.shape if name not in unsaved and value is not None else _fact(name, value)
    return facts


def _fact(name: str, value: Any) -> Any:
    """What is compared of an attribute: its value, or for objects their type."""
    if value is None or isinstance(value, bool | int | float | str | type):
        return value
    if isinstance(value, Tensor):
        is_drawn = isinstance(value, nn.Parameter) or name.startswith("_example")
        return value.shape if is_drawn else value.tolist()
    if "hook" in name and isinstance(value, Mapping):
        return len(value)
    if isinstance(value, Mapping):
        return {key: _fact(name, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_fact(name, each) for each in value]
    return (value.__module__, value.__qualname__) if isinstance(value, FunctionType) else type(value)
