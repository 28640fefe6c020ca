"""Saved models: what is in their files, how they are written and loaded, and how they are shared."""

from typing import TYPE_CHECKING

from pyro_vae.system.lazy import lazy_names

if TYPE_CHECKING:
    from pyro_vae.saving.checkpoint import CheckpointError
    from pyro_vae.saving.loading import load
    from pyro_vae.saving.model_folder import save

__all__ = ["CheckpointError", "load", "save"]

if not TYPE_CHECKING:  # the names of files are read without torch
    _MODULES = {"checkpoint": ["CheckpointError"], "loading": ["load"], "model_folder": ["save"]}
    __getattr__, __dir__ = lazy_names(__name__, __all__, _MODULES)
