"""How to train: the arguments of ``fit`` as options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pyro.infer import TraceMeanField_ELBO
from torch.optim.lr_scheduler import LinearLR

from pyro_vae.checks import check_count
from pyro_vae.infer.kl_weight import linear_warm_up
from pyro_vae.infer.losses import ELBO, IWAE, BetaELBO, DReG, FreeBits, StickingTheLanding

__all__ = ["Fitting"]

LOSSES: dict[str, Callable[[int], Any]] = {
    "trace": ELBO,
    "meanfield": lambda particles: TraceMeanField_ELBO(particles, vectorize_particles=True, max_plate_nesting=1),
    "iwae": IWAE,
    "dreg": DReG,
    "sticking-the-landing": StickingTheLanding,
}
COMPILE: dict[str, bool | str] = {"auto": "auto", "inductor": True, "graph": "graph", "none": False}


@dataclass(frozen=True)
class Fitting:
    """Options that say how to train; see :func:`~pyro_vae.fit`."""

    epochs: int = 15
    """Passes over the training data, in total: more of them may be asked for when a run goes on."""
    batch_size: int = 128
    """Datapoints in a step."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    lr_decay: Literal["none", "linear"] = "none"
    """Whether the learning rate falls, epoch by epoch: linear is to 0 after the last one."""
    loss: Literal["trace", "meanfield", "iwae", "dreg", "sticking-the-landing"] = "meanfield"
    """Negative ELBO with the KL sampled, or in closed form where there is one; the importance-weighted bound, with the
    usual gradient or the doubly reparameterized one; or the ELBO with the path derivative."""
    particles: int = 1
    """Draws of the latents for each datapoint, in the loss."""
    beta: float | None = None
    """A weight of the KL, in all of the training (Higgins et al. 2017); by default it is 1."""
    free_bits: float | None = None
    """Nats that the KL of each latent dimension has for nothing (Kingma et al. 2016), in the place of a loss."""
    kl_warmup: float | None = None
    """Epochs over which the weight of the KL grows from 0 to 1; by default it is 1."""
    clip_norm: float | None = None
    """What the norm of the gradient of the loss per datapoint, in nats, is clipped to; by default it is not."""
    accumulate: int = 1
    """Parts in which the gradients of a batch are computed, to save memory."""
    patience: int | None = None
    """Epochs without a better ELBO of the validation data after which to stop; by default it does not."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What to do at a loss or gradient that is not finite: stop, or skip the step."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products and convolutions."""
    compile: Literal["auto", "inductor", "graph", "none"] = "auto"
    """How steps are made fast: by Inductor, by replaying what was recorded, or not at all; auto chooses."""
    devices: int = 1
    """Processes of this machine that train together, each on a GPU of its own if there are any."""
    strategy: Literal["ddp", "ddp_spawn", "ddp_fork", "fsdp"] = "ddp"
    """How they are started; see pyro_vae.fit."""
    save_every: float = 30.0
    """Seconds between saves; it is saved at the end in any case."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``fit``, by name.

        Raises:
            ValueError: If an option has a value that cannot be, or two cannot be together.
        """
        decay = partial(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=self.epochs)
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "scheduler": decay if self.lr_decay == "linear" else None,
            "loss": self._loss(),
            "kl_weight": None if self.kl_warmup is None else linear_warm_up(self.kl_warmup),
            "clip_norm": self.clip_norm,
            "accumulate": self.accumulate,
            "patience": self.patience,
            "on_nan": self.on_nan,
            "precision": self.precision,
            "compile": COMPILE[self.compile],
            "devices": self.devices,
            "strategy": self.strategy,
            "save_every": self.save_every,
        }

    def _loss(self) -> Any:
        check_count("--particles", self.particles)
        if self.loss in ("iwae", "dreg"):  # with one particle, these are the ELBO
            check_count(f"--particles, for --loss {self.loss},", self.particles, least=2)
        if self.free_bits is not None and (self.loss != "meanfield" or self.particles != 1):
            raise ValueError("--free-bits is in the place of --loss and --particles; leave them out")
        loss = LOSSES[self.loss](self.particles) if self.free_bits is None else FreeBits(self.free_bits)
        return loss if self.beta is None else BetaELBO(self.beta, loss)
