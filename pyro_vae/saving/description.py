"""Descriptions of modules in JSON, and the modules built from them."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.saving.bounded import Bounded
from pyro_vae.saving.difference import difference
from pyro_vae.saving.moved import MOVED
from pyro_vae.saving.parameter_counts import parameter_counts
from pyro_vae.system.private_apis import held_by
from pyro_vae.system.randomness import generators_kept
from pyro_vae.system.trees import leaves_of
from pyro_vae.system.values import default_dtype

_PACKAGES = ("pyro_vae", "torch.nn")
_PARTS = ("likelihoods", "models", "nn", "posteriors", "priors")  # packages with the modules of this library
_PLAIN = (bool, int, float, str, type(None))
_PLACED = ("device", "dtype")  # arguments of torch's modules that their tensors show


class NotDescribable(ValueError):  # noqa: N818
    """A module that cannot be built again from a description."""


def describe(module: nn.Module) -> dict[str, Any]:
    """Describes a module by its class and its arguments, and these in the same way.

    The module must keep its arguments as attributes of the same names. The description is built at once, to check that
    it gives the same module, except for the weights.

    Raises:
        NotDescribable: If a part is neither of this library nor of ``torch.nn``, or was changed after it was created.
    """
    weights = module.state_dict()
    dtypes = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    if len(dtypes) > 1:
        raise NotDescribable(f"{type(module).__name__} has parameters of different dtypes")
    description = {
        "dtype": _word(dtypes.pop() if dtypes else torch.float32),
        "default_dtype": _word(torch.get_default_dtype()),  # constants may have this dtype
        "frozen": [name for name, parameter in module.named_parameters() if not parameter.requires_grad],
        "parameters": parameter_counts(module),
        "module": _describe("", module, {}),
    }
    try:
        again = build(description, weights)
    except Exception as error:  # an attribute may differ from the argument of its name
        raise NotDescribable(f"{type(module).__name__} cannot be built again: {error}") from error
    if reason := difference(module, again):
        raise NotDescribable(reason)
    return description


def describe_if_possible(module: nn.Module) -> tuple[dict[str, Any] | None, str]:
    """The description of a module and an empty string, or None and the reason why there is none."""
    try:
        return describe(module), ""
    except NotDescribable as error:
        return None, str(error)


def build(description: dict[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """Builds the module that :func:`describe` has described, with arbitrary weights. torch's generators do not change.

    Args:
        description: The description.
        weights: The weights it will get. A description that needs far more memory is refused before it is used.

    Raises:
        Exception: If the description is invalid.
    """
    for package in _PARTS:  # all of them: a file does not choose what is imported
        import_module(f"pyro_vae.{package}")
    dtype, dtype_then = (_dtype(description[name]) for name in ("dtype", "default_dtype"))
    cpu = torch.device("cpu")
    size = sum(tensor.nbytes for tensor in weights.values())
    if any(isinstance(number, int) and abs(number) > 2**16 + size for number in leaves_of(description)):
        raise ValueError("it has numbers far larger than its weights need")
    ignored = warnings.catch_warnings(action="ignore")  # they were shown when the module was created
    with default_dtype(dtype_then), generators_kept(cpu), cpu, ignored, Bounded(size):
        module = _build("", description["module"], {})
    for name in description["frozen"]:
        module.get_parameter(name).requires_grad_(False)
    return module.to(dtype)


def _describe(path: str, value: Any, known: dict[int, str]) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        # A number that is not a weight; other tensors are weights, and only their shapes matter.
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
    if isinstance(value, nn.Sequential):
        _, _, modules = held_by(value)  # with those that are there twice
        described = {key: _describe(f"{path}.{key}", each, known) for key, each in modules.items()}
        return {"class": name, "modules": described}
    arguments = {}
    for parameter in inspect.signature(type(value)).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name in _PLACED:
            continue
        if hasattr(value, parameter.name):
            arguments[parameter.name] = _describe(f"{path}.{parameter.name}", _argument(value, parameter.name), known)
        elif parameter.default is parameter.empty:
            raise NotDescribable(
                f"{path.strip('.') or 'it'}, a {type(value).__name__}, does not tell its {parameter.name}"
            )
    return {"class": name, "arguments": arguments}


def _name(path: str, kind: type[nn.Module]) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if not _is_ours(name):
        raise NotDescribable(f"{path.strip('.') or 'it'} is a {name}")
    return name


def _argument(module: nn.Module, name: str) -> Any:
    value = getattr(module, name)
    # torch's modules take a flag for the bias, and keep the bias itself, or None.
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
        items = described["modules"].items()
        module = kind(OrderedDict((name, _build(f"{path}.{name}", each, known)) for name, each in items))
    else:
        items = _known_here(kind, described["arguments"]).items()
        module = kind(**{name: _build(f"{path}.{name}", each, known) for name, each in items})
    known[path] = module
    return module


def _known_here(kind: type[nn.Module], arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, without those of later versions of torch whose value means what this version does anyway.

    Raises:
        ValueError: If one is not known here, and means something else.
    """
    parameters = inspect.signature(kind).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    known = {name: each for name, each in arguments.items() if name in parameters or takes_any}
    for name in arguments.keys() - known.keys():
        # Norms have a flag for the bias in torch 2.15, and not yet in 2.7: they have a bias if they have a weight.
        if name != "bias" or "affine" not in arguments or arguments["bias"] is not arguments["affine"]:
            raise ValueError(f"{kind.__name__} has no argument {name} in this version")
    return known


def _is_ours(name: str) -> bool:
    return name.startswith(tuple(f"{package}." for package in _PACKAGES))


def _find(name: str) -> type[nn.Module]:
    """A class from a module that is imported already: a file cannot import anything."""
    if not isinstance(name, str) or not _is_ours(name):
        raise ValueError(f"{name!r} is not a class of {' or '.join(_PACKAGES)}")
    module, _, class_name = name.rpartition(".")
    module = MOVED.get(module, module)
    kind = getattr(sys.modules.get(module), class_name, None)
    if kind is None:
        raise ValueError(f"there is no class {name} in this version")
    if not (isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == module):
        raise ValueError(f"{name} is not a module")
    return kind


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(word: str) -> torch.dtype:
    dtype = getattr(torch, word)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{word!r} is not a dtype")
    return dtype
