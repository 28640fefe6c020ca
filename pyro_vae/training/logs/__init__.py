"""Logs of a run while it trains: callbacks for :func:`~pyro_vae.fit`. They do not change the training."""

from pyro_vae.training.logs.pictures import Pictures
from pyro_vae.training.logs.tensorboard import TensorBoard

__all__ = ["Pictures", "TensorBoard"]
