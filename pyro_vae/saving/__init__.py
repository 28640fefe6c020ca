"""Saved models: what is in their files, how they are written and loaded, and how they are shared."""

from pyro_vae.saving.checkpoint import CheckpointError
from pyro_vae.saving.loading import load
from pyro_vae.saving.model_folder import save

__all__ = ["CheckpointError", "load", "save"]
