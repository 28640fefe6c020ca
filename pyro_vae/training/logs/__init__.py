"""Logs of a run while it trains: callbacks for :func:`~pyro_vae.fit`. They do not change the training."""

from pyro_vae.training.logs.mlflow import MLflow
from pyro_vae.training.logs.pictures import Pictures
from pyro_vae.training.logs.tensorboard import TensorBoard
from pyro_vae.training.logs.wandb import WandB

__all__ = ["MLflow", "Pictures", "TensorBoard", "WandB"]
