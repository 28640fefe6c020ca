"""The versions of Python and of packages."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that compute, by name."""
    import torch  # the names of versions have more than those of packages: 2.14.0+cpu

    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package, name in (("pyro_vae", "pyro-vae"), ("pyro", "pyro-ppl"), ("zuko", "zuko")):
        try:
            found[package] = version(name)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
