"""Guards: values outside of a program's arguments that its recording depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vae.system.private_apis import held_by

_PLAIN = (bool, int, float, str)
_SEEN = (*_PLAIN, type(None), Tensor, nn.Module)
# Attributes of every module of torch and Pyro.
_INTERNAL = set(vars(PyroModule())).union(*(vars(kind) for kind in PyroModule.__mro__)) - {"training"}


class Guards:
    """The numbers, strings, flags, modules and tensors that two programs can see besides their arguments.

    They are attributes (``training`` is one) of the modules that the programs call and of the object whose methods they
    are, ``requires_grad`` of the parameters of these modules, and variables that the programs read themselves. Values
    that they reach through other objects or functions are not found.
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        programs = [model, guide]
        self._objects = {id(each): each for each in (getattr(program, "__self__", program) for program in programs)}
        self._functions = [getattr(program, "__func__", program) for program in programs]
        self._names: list[tuple[dict[str, Any], str]] = []
        self._cells: list[Any] = []
        self._parameters: list[nn.Parameter] = []
        self.add([])

    def add(self, modules: Iterable[nn.Module]) -> None:
        """Adds modules that were called, and updates what the programs can see."""
        self._objects.update({id(module): module for module in modules})
        objects = [each for each in self._objects.values() if hasattr(each, "__dict__")]
        self._names = [(vars(each), name) for each in objects for name in _seen(vars(each)) | _class_attributes(each)]
        for function in self._functions:
            if hasattr(function, "__code__"):
                seen = _seen(function.__globals__)
                self._names += [(function.__globals__, name) for name in function.__code__.co_names if name in seen]
        cells = [cell for function in self._functions for cell in getattr(function, "__closure__", None) or ()]
        self._cells = [cell for cell in cells if isinstance(_content(cell), _SEEN)]
        self._parameters = []
        for module in (each for each in objects if isinstance(each, nn.Module)):
            self._parameters += module.parameters(recurse=False)
            for held in held_by(module):
                self._names += [(held, name) for name in held]

    def values(self) -> tuple[Any, ...]:
        """Their present values; modules and tensors by their identity."""
        values = [namespace.get(name) for namespace, name in self._names]
        values += [_content(cell) for cell in self._cells]
        return (
            *[value if isinstance(value, _PLAIN) else id(value) for value in values],
            *[parameter.requires_grad for parameter in self._parameters],
        )


def _seen(namespace: dict[str, Any]) -> set[str]:
    return {name for name, value in namespace.items() if isinstance(value, _SEEN)} - _INTERNAL


def _class_attributes(each: Any) -> set[str]:
    """Class attributes, which an attribute of the object itself may hide later."""
    found = set().union(*(_seen(dict(vars(kind))) for kind in type(each).__mro__))
    return {name for name in found if not name.startswith("__")}


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return None
