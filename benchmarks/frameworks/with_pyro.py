"""Pyro's own SVI, on programs written as in its tutorial on VAEs, with validation off, which favours Pyro."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

from frameworks import torch_networks
from frameworks.work import CONTEXT, Work

__all__ = ["Training"]


class Training:
    """``elbo`` is the name of Pyro's class of the loss; by default the one that ``work`` asks for.

    Pyro's examples do not ask for the fused kernels of Adam; ``fused`` does.
    """

    def __init__(self, work: Work, images: np.ndarray, elbo: str | None = None, fused: bool | None = None) -> None:
        pyro.set_rng_seed(work.seed)
        pyro.enable_validation(False)
        self.work = work
        self.encoder, self.decoder = torch_networks.networks(work)
        self.steps = torch_networks.flow_steps(work) if work.model == "flow" else None
        adam = {"lr": work.lr, "fused": fused}
        self.scheduler = None
        if work.decay:
            decay = {"start_factor": 1.0, "end_factor": 1 / work.epochs, "total_iters": work.epochs - 1}
            optimizer = self.scheduler = pyro.optim.LinearLR(
                {"optimizer": torch.optim.Adam, "optim_args": adam, **decay}
            )
        else:
            optimizer = pyro.optim.Adam(adam)
        elbo = elbo or ("Trace_ELBO" if work.sampled_kl else "TraceMeanField_ELBO")
        self.svi = pyro.infer.SVI(self.model, self.guide, optimizer, getattr(pyro.infer, elbo)())
        self.batches = torch_networks.batches(work, images)
        self.steps_per_epoch = len(images) // work.batch_size

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], self.work.latent)
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(x.ndim - 1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            latent = self.work.latent
            if self.steps is None:
                loc, raw_scale = self.encoder(x).split(latent, dim=-1)
                pyro.sample("z", dist.Normal(loc, torch_networks.positive(self.work, raw_scale)).to_event(1))
            else:
                loc, raw_scale, context = self.encoder(x).split([latent, latent, CONTEXT], dim=-1)
                base = dist.Normal(loc, torch_networks.positive(self.work, raw_scale)).to_event(1)
                pyro.sample("z", self.bent(base, context))

    def bent(self, base: dist.TorchDistribution, context: Tensor) -> dist.TorchDistribution:
        import zuko
        from pyro.contrib.zuko import ZukoToPyro

        pyro.module("steps", self.steps)
        return ZukoToPyro(zuko.distributions.NormalizingFlow(self.steps(context).inv, base))

    def run(self, steps: int) -> float:
        total = sum(self.svi.step(x) for x in islice(self.batches, steps))
        return total / (steps * self.work.batch_size)

    def train(self) -> None:
        for _ in range(self.work.epochs):
            self.run(self.steps_per_epoch)
            if self.scheduler:
                self.scheduler.step()

    def weights(self) -> list[np.ndarray]:
        return torch_networks.weights(self.encoder, self.decoder)
