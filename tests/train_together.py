"""Trains as told, in one process or in several, for ``test_distributed.py``: python train_together.py JSON.

It is told a list of runs, which it does one after the other: to start processes takes longer than to train in them.
"""

from __future__ import annotations

import json
import sys

import pyro
import torch
from pyro import poutine
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyro_vae import VAE, evidence, fit, likelihoods, load, nn, posteriors, priors
from pyro_vae.distributions import as_pyro
from pyro_vae.infer.kl_weight import linear_warm_up
from pyro_vae.processes import join
from pyro_vae.training import ema

ROWS, PIXELS, LATENT = 97, 6, 2  # batches of 16 leave one row, for one process only


def new_vae() -> VAE:
    torch.manual_seed(3)
    return VAE(
        priors.Mixture(LATENT, 3),
        likelihoods.Normal(nn.mlp(LATENT, [8], PIXELS), likelihoods.PositiveParameter(1.0)),
        posteriors.Normal(nn.mlp(PIXELS, [8], 2 * LATENT)),
    ).double()


def new_data() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(ROWS, PIXELS, generator=generator, dtype=torch.float64)


class NoNoise:
    """A loss without noise, a sum over rows: the reconstruction at the mean code, and its density under the prior."""

    def __init__(self, vae: VAE) -> None:
        self.vae = vae

    def __call__(self, model, guide, x):  # noqa: ARG002
        z = self.vae.posterior(x).mean
        return -(self.vae.likelihood(z).log_prob(x) + self.vae.prior().log_prob(z)).sum()


class Subsampled(VAE):
    """The same, of which every batch is a subsample: losses stand for all rows."""

    def model(self, x):
        with poutine.scale(scale=ROWS / len(x)):
            return super().model(x)

    def guide(self, x):
        with pyro.plate("data", ROWS, subsample=x):
            return pyro.sample("z", as_pyro(self.posterior(x)))

    def loss(self, model, guide, x):  # noqa: ARG002
        """Without noise, and scaled as the guide is."""
        scale = poutine.trace(guide).get_trace(x).nodes["z"]["scale"]
        return scale * NoNoise(self)(None, None, x)


class Stream(IterableDataset):
    """Rows that each process takes its own part of: the first two thirds of them, if there are two."""

    def __iter__(self):
        processes = join("cpu")
        cut = ROWS * 2 // 3 if processes.size == 2 else ROWS
        yield from (new_data()[:cut] if processes.is_first else new_data()[cut:])


def as_told(kind: str):
    x = new_data()
    return {
        "tensor": lambda: x,
        "dataset": lambda: TensorDataset(x, torch.arange(ROWS)),
        "loader": lambda: DataLoader(x, batch_size=16, shuffle=True, num_workers=1, persistent_workers=True),
        "stream": lambda: DataLoader(Stream(), batch_size=16),
    }[kind]()


def train(told: dict) -> dict | None:
    """Does as told. Returns what is to be known, in the first process."""
    vae = new_vae()
    if told.get("subsample"):
        vae.__class__ = Subsampled
    options = {"epochs": told.get("epochs", 3), "batch_size": 16, "lr": 1e-2, "seed": 1, "progress": False}
    options |= {"kl_weight": linear_warm_up(2), "clip_norm": 5.0} if told.get("warm_up") else {}
    options |= {"loss": NoNoise(vae)} if told.get("no_noise") else {}
    options |= {"average": ema(told["decay"])} if "decay" in told else {}
    if told.get("subsample"):  # with an optimizer that minds how large gradients are
        options |= {"loss": vae.loss, "optimizer": torch.optim.SGD, "lr": 1e-5, "clip_norm": 0.5}
    run = fit(vae, as_told(told["train"]), new_data()[:33], **options, **told.get("fit", {}))
    processes = join("cpu")
    if told.get("fit", {}).get("strategy") == "fsdp":
        vae = load(told["fit"]["out"] + "/last.safetensors")  # the whole of it
    result = evidence.importance(vae.model, vae.guide, new_data(), num_samples=50, processes=processes)
    weights = [parameter.detach().flatten().tolist() for parameter in vae.parameters()]
    all_weights = processes.gather(weights)
    if not processes.is_first:
        return None
    return {
        "size": processes.size,
        "history": run.history,
        "weights": weights,
        "same_weights": all(each == weights for each in all_weights),
        "log_prob": result.log_prob.tolist(),
        "std_error": result.std_error.tolist(),
    }


def train_all(runs: list[dict]) -> list[dict | None]:
    """Does the runs one after the other."""
    return [train(told) for told in runs]


if __name__ == "__main__":
    for outcome in train_all(json.loads(sys.argv[1])):
        if outcome is not None:
            print(json.dumps(outcome), flush=True)
