"""What a module is made of, in words that JSON can hold, and the module made again of them."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.randomness import generators_kept

__all__ = ["NotDescribable", "build", "describe"]

_PACKAGES = ("pyro_vae", "torch.nn")
_PLAIN = (bool, int, float, str, type(None))
_PLACED = ("device", "dtype")  # arguments of torch's modules that are seen in their tensors


class NotDescribable(ValueError):  # noqa: N818
    """A module with something in it that cannot be made again from its description."""


def describe(module: nn.Module) -> dict[str, Any]:
    """Describes a module by its class and arguments, which it keeps as attributes of those names, and these likewise.

    What is described is built again at once, to see that it is the same, weights aside.

    Raises:
        NotDescribable: If it has parts that are neither of this library nor of ``torch.nn``, or were altered.
    """
    dtypes = {tensor.dtype for tensor in module.state_dict().values() if tensor.is_floating_point()}
    if len(dtypes) > 1:
        raise NotDescribable(f"{type(module).__name__} has parameters of different dtypes")
    description = {"dtype": str(dtypes.pop()).removeprefix("torch.") if dtypes else "float32"}
    description |= _describe("", module, {})
    try:
        difference = _difference(module, build(description))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise NotDescribable(f"{type(module).__name__} cannot be built again: {error}") from error
    if difference:
        raise NotDescribable(difference)
    return description


def build(description: dict[str, Any]) -> nn.Module:
    """Makes the module that :func:`describe` has described, with weights of no meaning. torch's generators are kept.

    Raises:
        ValueError: If the description is none.
    """
    with generators_kept(torch.device("cpu")):
        module = _build("", description, {})
    return module.to(getattr(torch, description["dtype"]))


def _describe(path: str, value: Any, known: dict[int, str]) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        # A number that is not among the weights; other tensors are, and only their shapes matter.
        return value.item() if value.numel() == 1 and not isinstance(value, nn.Parameter) else {"ones": [*value.shape]}
    if isinstance(value, list | tuple | nn.ModuleList):
        return [_describe(f"{path}.{i}", each, known) for i, each in enumerate(value)]
    if isinstance(value, type) and issubclass(value, nn.Module):
        return {"type": _name(path, value)}
    if not isinstance(value, nn.Module):
        raise NotDescribable(f"{path.strip('.')} is of type {type(value).__name__}")
    if id(value) in known:
        return {"same": known[id(value)]}
    known[id(value)] = path
    name = _name(path, type(value))
    if value._forward_hooks or value._forward_pre_hooks:
        raise NotDescribable(f"{path.strip('.') or 'it'} has hooks")
    if isinstance(value, nn.Sequential):
        return {"class": name, "modules": [_describe(f"{path}.{i}", each, known) for i, each in enumerate(value)]}
    arguments = {}
    for parameter in inspect.signature(type(value)).parameters.values():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and parameter.name not in _PLACED:
            arguments[parameter.name] = _describe(f"{path}.{parameter.name}", _argument(value, parameter.name), known)
    return {"class": name, "arguments": arguments}


def _name(path: str, kind: type[nn.Module]) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not _is_ours(name):
        raise NotDescribable(f"{path.strip('.') or 'it'} is a {name}")
    return name


def _argument(module: nn.Module, name: str) -> Any:
    try:
        value = getattr(module, name)
    except AttributeError as error:
        raise NotDescribable(f"a {type(module).__name__} does not tell its {name}") from error
    # torch's modules are asked for a bias by a flag, and keep it, or None.
    return value is not None if name == "bias" and not isinstance(value, bool) else value


def _build(path: str, described: Any, known: dict[str, nn.Module]) -> Any:
    if isinstance(described, list):
        return [_build(f"{path}.{i}", each, known) for i, each in enumerate(described)]
    if not isinstance(described, dict):
        return described
    if "ones" in described:
        return torch.ones(described["ones"])
    if "same" in described:
        return known[described["same"]]
    if "type" in described:
        return _find(described["type"])
    kind = _find(described["class"])
    if "modules" in described:
        modules = [_build(f"{path}.{i}", each, known) for i, each in enumerate(described["modules"])]
        module = kind(*modules)
    else:
        arguments = described["arguments"].items()
        module = kind(**{name: _build(f"{path}.{name}", each, known) for name, each in arguments})
    known[path] = module
    return module


def _is_ours(name: str) -> bool:
    return name.startswith(tuple(f"{package}." for package in _PACKAGES))


def _find(name: str) -> type[nn.Module]:
    if not isinstance(name, str) or not _is_ours(name):
        raise ValueError(f"{name!r} is no class of {' or '.join(_PACKAGES)}")
    module, _, class_name = name.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no class {name} in this version") from error
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ValueError(f"{name} is no module")
    return kind


def _difference(module: nn.Module, other: nn.Module) -> str | None:
    """What tells two modules apart, but for the values of weights; None if nothing does."""
    ours, theirs = dict(module.named_modules()), dict(other.named_modules())
    if ours.keys() != theirs.keys():
        return "it has other modules than its arguments make"
    for name, mine in ours.items():
        facts, others = _facts(mine), _facts(theirs[name])
        for fact in facts.keys() | others.keys():
            if facts.get(fact) != others.get(fact):
                return f"{name or 'it'} has another {fact} than its arguments make"
    return None


def _facts(module: nn.Module) -> dict[str, Any]:
    facts: dict[str, Any] = {"class": type(module)}
    facts |= {name: value for name, value in vars(module).items() if type(value) in _PLAIN and name != "training"}
    for name, value in (*module._parameters.items(), *module._buffers.items()):
        facts[name] = None if value is None else value.shape
        if name in module._non_persistent_buffers_set and not name.startswith("_example") and value is not None:
            facts[name] = value.tolist()
    return facts
