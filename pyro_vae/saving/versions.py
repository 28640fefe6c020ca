"""The versions of Python and of packages."""

from __future__ import annotations

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that compute, by name."""
    import platform  # imported here, since commands import this module before they know whether they need it
    from importlib.metadata import PackageNotFoundError, version

    import torch

    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package, name in (("pyro_vae", "pyro-vae"), ("pyro", "pyro-ppl"), ("zuko", "zuko")):
        try:
            found[package] = version(name)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
