"""Training for ``test_kill.py``, in a process that it can kill. Without pytest, so that there is little to import."""

from __future__ import annotations

import io
import signal
import sys
from contextlib import redirect_stderr
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

from pyro_vae import VAE, Interrupted, data, fit, likelihoods, nn, posteriors, priors
from pyro_vae.infer.kl_weight import linear_warm_up
from pyro_vae.training import ema

torch.set_num_threads(1)

EVENT = (1, 4, 4)
GREY = torch.rand(84, *EVENT, generator=torch.Generator().manual_seed(0))  # the last batch is smaller
STEPS_IN_AN_EPOCH = 11


def with_noise(x: torch.Tensor) -> list[torch.Tensor]:
    return [torch.stack([image for (image,) in x]).mul(1 - 0.1 * torch.rand(()))]


RUNS: dict[str, dict[str, Any]] = {
    "a tensor, recorded": {
        "train": GREY,
        "epochs": 18,
        "compile": "graph",
        "save_every": 0.0,
        "scheduler": partial(OneCycleLR, max_lr=0.01, total_steps=18 * STEPS_IN_AN_EPOCH),
        "scheduler_every": "step",
        "average": ema(0.95),
    },
    "a loader, as Pyro": {
        "train": DataLoader(TensorDataset(GREY), 8, shuffle=True, collate_fn=with_noise),
        "epochs": 8,
        "compile": False,
        "save_every": 0.02,
        "scheduler": partial(CosineAnnealingLR, T_max=8),
        "clip_norm": 5.0,
        "accumulate": 2,
    },
}
watcher: Connection | None = None
warm_up = linear_warm_up(3)


def kl_weight(epoch: float) -> float:
    """Is called before every step: tells who watches, and waits until it may go on."""
    global watcher
    if watcher is not None:
        try:
            watcher.send("at a step")
            watcher.recv()
        except (EOFError, OSError):  # nobody watches any more
            watcher = None
    return warm_up(epoch)


def train(name: str, out: Path, watched_by: Connection | None = None) -> None:
    """Goes on with the run in the folder, to its end; what is said is written beside it."""
    global watcher
    watcher = watched_by
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background of a script ignores it
    torch.manual_seed(5)
    vae = VAE(
        priors.Mixture(2, components=3),
        likelihoods.Bernoulli(nn.mlp(2, [8], EVENT)),
        posteriors.Normal(nn.mlp(EVENT, [8], 4)),
    )
    options = {
        "batch_size": 8,
        "valid": GREY[:20].round(),
        "transform": data.binarize.dynamic,
        "seed": 2,
        "resume": True,
    }
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            fit(vae, **options, **RUNS[name], kl_weight=kl_weight, out=out, progress=False)
    except Interrupted as error:
        said.write(f"Interrupted: {error} ({len(error.result.history)} epochs)")
        sys.exit(130)
    except KeyboardInterrupt:
        said.write("KeyboardInterrupt")
        sys.exit(1)
    finally:
        out.with_suffix(".stderr").write_text(said.getvalue())
