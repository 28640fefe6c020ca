"""The versions of Python and of packages."""

from __future__ import annotations

import platform

import torch

from pyro_vae.system.packages import versions_of


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that compute, by name."""
    others = versions_of({"pyro_vae": "pyro-vae", "pyro": "pyro-ppl", "zuko": "zuko"})
    return {"python": platform.python_version(), "torch": torch.__version__, **others}
