"""Packages that are optional, and the versions of those that are installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def import_extra(name: str, problem: str, extra: str) -> Any:
    """Imports a module of an optional package.

    Args:
        name: The module.
        problem: What the message begins with, if the package is not installed.
        extra: The extra of pyro_vae that installs it.

    Raises:
        ImportError: If it is not installed; the message says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{problem}: pip install 'pyro-vae[{extra}]'") from error


def versions_of(packages: Mapping[str, str]) -> dict[str, str]:
    """The versions of packages, given as the name of each in the result and on PyPI; ``unknown`` without metadata."""
    found = {}
    for name, on_pypi in packages.items():
        try:
            found[name] = version(on_pypi)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
