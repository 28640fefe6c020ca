"""Packages whose names are imported when they are used for the first time, since torch and Pyro take seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names: Sequence[str], modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: The name of the package.
        names: What it exports.
        modules: The names that a module of the package defines, by module. All others are themselves modules.
    """
    module_of = {name: module for module, defined in modules.items() for name in defined}

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{module_of.get(name, name)}")
        value = getattr(module, name) if name in module_of else module
        setattr(sys.modules[package], name, value)  # Python calls this function only for names that it does not find
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *names})
