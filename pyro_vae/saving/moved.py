"""Modules that have moved: runs that were saved earlier have the old names."""

from __future__ import annotations

MOVED = {
    "pyro_vae.conditional": "pyro_vae.models.conditional",
    "pyro_vae.hierarchical": "pyro_vae.models.hierarchical",
    "pyro_vae.semi_supervised": "pyro_vae.models.semi_supervised",
    "pyro_vae.vae": "pyro_vae.models.vae",
}
