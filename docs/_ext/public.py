"""The public names of the library, as the ``__all__`` of its packages lists them."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import pyro_vae

__all__ = ["public_modules", "public_names"]

MODULES = ["data.binarize", "infer.kl_weight", "plots", "processes", "sklearn", "weights"]  # public, but no packages
# Their names are for the rest of the library, or are exported by other packages.
INTERNAL = ["cli", "saving"]


def public_modules() -> list[str]:
    """The public packages and modules, such as ``pyro_vae.evidence``."""
    packages = ["pyro_vae"]
    for module in pkgutil.walk_packages(pyro_vae.__path__, "pyro_vae."):
        if module.ispkg and module.name.removeprefix("pyro_vae.") not in INTERNAL:
            packages.append(module.name)
    names = packages + [f"pyro_vae.{name}" for name in MODULES]
    return [name for name in names if hasattr(importlib.import_module(name), "__all__")]


def public_names() -> dict[str, Any]:
    """All public objects by their public names, such as ``pyro_vae.evidence.estimate``, without modules."""
    found = {}
    for module in public_modules():
        package = importlib.import_module(module)
        for name in package.__all__:
            if not isinstance(value := getattr(package, name), ModuleType):
                found[f"{module}.{name}"] = value
    return found
