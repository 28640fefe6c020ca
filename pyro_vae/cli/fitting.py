"""The arguments of ``fit`` as options."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from tyro.conf import arg

import pyro_vae
from pyro_vae.checks import check_count
from pyro_vae.cli.defaults import by_default

LOSSES = {"trace": "ELBO", "iwae": "IWAE", "dreg": "DReG", "sticking-the-landing": "StickingTheLanding"}
LOSS = (
    "Objective. trace: ELBO with a sampled KL; meanfield: ELBO with the KL in closed form, if there is one; iwae: "
    "importance-weighted bound; dreg: the same with doubly reparameterized gradients; sticking-the-landing: ELBO with "
    "path-derivative gradients."
)
# Options that other arguments are made from.
NOT_OF_FIT = ("lr_decay", "particles", "beta", "free_bits", "kl_warmup", "ema")
COMPILE: dict[str, bool | str] = {"auto": "auto", "inductor": True, "graph": "graph", "none": False}


@dataclass(frozen=True)
class Fitting:
    """Options for training; see :func:`~pyro_vae.fit`."""

    epochs: int = 15
    """Number of passes over the training data, in total. It may be increased when a run is resumed."""
    batch_size: int = 128
    """Number of datapoints in a step."""
    drop_last: bool = False
    """Leave out the last batch of each epoch if it is smaller than the others."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    lr_decay: Literal["none", "linear"] = "none"
    """Schedule of the learning rate. linear: it decreases in every epoch, to 0 after the last one."""
    loss: Annotated[Literal["trace", "meanfield", "iwae", "dreg", "sticking-the-landing"], arg(help=LOSS)] = "meanfield"
    particles: int = 1
    """Number of particles in the objective: samples of the latents for each datapoint."""
    beta: Annotated[float | None, by_default("1")] = None
    """Constant weight of the KL (Higgins et al. 2017)."""
    free_bits: Annotated[float | None, by_default("none")] = None
    """Free bits, in nats per latent dimension (Kingma et al. 2016): a loss that replaces --loss and --particles."""
    kl_warmup: Annotated[float | None, by_default("no warm-up")] = None
    """Number of epochs in which the weight of the KL grows from 0 to 1."""
    ema: Annotated[float | None, by_default("no average")] = None
    """Exponential moving average of the weights over the steps, with this decay, such as 0.999. It is what is saved."""
    clip_norm: Annotated[float | None, by_default("no clipping")] = None
    """Clip the gradient of the loss per datapoint to this norm."""
    accumulate: int = 1
    """Number of parts in which the gradient of a batch is computed, to save memory."""
    patience: Annotated[int | None, by_default("no early stopping")] = None
    """Stop after this number of epochs without a better loss of the validation data."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What to do if a loss or gradient is not finite: stop, or skip the step."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products and convolutions."""
    compile: Literal["auto", "inductor", "graph", "none"] = "auto"
    """How to make steps fast. inductor: compile them; graph: replay a recorded step; none: not at all; auto: choose."""
    devices: int = 1
    """Number of processes on this machine that train together, each on its own GPU if there are GPUs."""
    strategy: Literal["ddp", "ddp_spawn", "ddp_fork", "fsdp"] = "ddp"
    """How the processes are started, and whether parameters are sharded (fsdp); see pyro_vae.fit."""
    save_every: float = 30.0
    """Seconds between saves. The run is always saved at the end."""

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``fit``, by name.

        Raises:
            ValueError: If an option is invalid, or two options exclude each other.
        """
        loss = self._loss()
        from torch.optim.lr_scheduler import LinearLR

        from pyro_vae.infer.kl_weight import linear_warm_up
        from pyro_vae.training import ema

        decay = partial(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=self.epochs)
        same = {name: value for name, value in vars(self).items() if name not in NOT_OF_FIT}
        return {
            **same,
            "scheduler": decay if self.lr_decay == "linear" else None,
            "loss": loss,
            "kl_weight": None if self.kl_warmup is None else linear_warm_up(self.kl_warmup),
            "average": None if self.ema is None else ema(self.ema),
            "compile": COMPILE[self.compile],
        }

    def _loss(self) -> Any:
        check_count("--particles", self.particles)
        if self.loss in ("iwae", "dreg"):  # with one particle, these are the ELBO
            check_count(f"--particles, for --loss {self.loss},", self.particles, least=2)
        if self.free_bits is not None and (self.loss != "meanfield" or self.particles != 1):
            raise ValueError("--free-bits replaces --loss and --particles; leave them out")
        losses = pyro_vae.infer.losses
        if self.free_bits is not None:
            loss: Any = losses.FreeBits(self.free_bits)
        elif self.loss == "meanfield":
            from pyro.infer import TraceMeanField_ELBO

            loss = TraceMeanField_ELBO(self.particles, vectorize_particles=True, max_plate_nesting=1)
        else:
            loss = getattr(losses, LOSSES[self.loss])(self.particles)
        return loss if self.beta is None else losses.BetaELBO(self.beta, loss)
