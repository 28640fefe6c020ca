"""This project's VAE and SVI."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor

from frameworks import torch_networks
from frameworks.work import CONTEXT, FLOW_HIDDEN, FLOW_STEPS, Work
from pyro_vae import SVI, VAE, data, likelihoods, nn, posteriors, priors

__all__ = ["Training"]

IMAGE = (1, 28, 28)


def build(work: Work) -> VAE:
    assert (work.activation, work.scale, work.initial) == ("silu", "softplus", "he")
    if work.model == "conv":
        decoder = nn.convolutional_decoder(work.latent, IMAGE)
        posterior = posteriors.Normal(nn.convolutional_encoder(IMAGE, 2 * work.latent))
    else:
        decoder = nn.mlp(work.latent, work.hidden, 784)
        posterior = posteriors.Normal(nn.mlp(784, work.hidden, 2 * work.latent))
    if work.model == "flow":
        encoder = nn.mlp(784, work.hidden, 2 * work.latent + CONTEXT)
        posterior = posteriors.InverseAutoregressive(encoder, work.latent, CONTEXT, FLOW_STEPS, FLOW_HIDDEN)
    return VAE(priors.StandardNormal(work.latent), likelihoods.Bernoulli(decoder), posterior).to(work.device)


class NextBatches(data.Batches):
    """A pass is so many batches as one likes, all of the same size."""

    steps = 0
    _endless: Iterator[Tensor] | None = None

    def indices(self) -> Iterator[Tensor]:
        if self._endless is None:
            one_pass = super().indices
            self._endless = (index for _ in count() for index in one_pass() if len(index) == self.batch_size)
        return islice(self._endless, self.steps)


class Training:
    """``options`` are those of ``SVI``."""

    def __init__(self, work: Work, images: np.ndarray, **options: Any) -> None:
        torch.manual_seed(work.seed)
        pyro.enable_validation(False)
        self.work = work
        self.vae = build(work)
        self.optimizer = torch.optim.Adam(self.vae.parameters(), lr=work.lr, fused=True)
        elbo = Trace_ELBO() if work.sampled_kl or work.model == "flow" else TraceMeanField_ELBO()
        self.svi = SVI(self.vae.model, self.vae.guide, self.optimizer, elbo, **options)
        self.batches = NextBatches(
            torch_networks.as_images(work, images), work.batch_size, data.binarize.dynamic if work.dynamic else None
        )
        self.steps_per_epoch = len(images) // work.batch_size

    def run(self, steps: int) -> float:
        self.batches.steps = steps
        return self.svi.epoch(self.batches) / (steps * self.work.batch_size)

    def train(self) -> None:
        torch_networks.train(self.work, self.optimizer, lambda: self.run(self.steps_per_epoch))

    def weights(self) -> list[np.ndarray]:
        return torch_networks.weights(self.vae.posterior, self.vae.likelihood)
