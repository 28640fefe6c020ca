"""Training: ``fit``, with runs that are saved and can be resumed."""

from pyro_vae.saving import CheckpointError, load
from pyro_vae.saving.file_names import BEST, LAST
from pyro_vae.training import logs
from pyro_vae.training.loop import fit
from pyro_vae.training.not_finite import NotFiniteError
from pyro_vae.training.run import Run, RunProgress
from pyro_vae.training.weight_average import ema

__all__ = ["BEST", "LAST", "CheckpointError", "NotFiniteError", "Run", "RunProgress", "ema", "fit", "load", "logs"]
