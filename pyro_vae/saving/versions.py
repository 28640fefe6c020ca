"""The versions of Python and of packages."""

from __future__ import annotations

from pyro_vae.system.packages import versions_of


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that compute, by name."""
    import platform  # imported here, since commands import this module before they know whether they need it

    import torch

    others = versions_of({"pyro_vae": "pyro-vae", "pyro": "pyro-ppl", "zuko": "zuko"})
    return {"python": platform.python_version(), "torch": torch.__version__, **others}
