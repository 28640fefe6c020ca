"""A variational autoencoder as one writes it by hand in PyTorch, without any framework, in the tightest sane loop."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from frameworks import torch_networks
from frameworks.work import CONTEXT, Work

__all__ = ["Training"]


class Training:
    """Eager, or with ``torch.compile`` for the loss and its gradient, in float32 or by autocast in bfloat16."""

    def __init__(self, work: Work, images: np.ndarray, compiled: bool = False, bfloat16: bool = False) -> None:
        torch.manual_seed(work.seed)
        self.work = work
        self.bfloat16 = bfloat16
        self.encoder, self.decoder = torch_networks.networks(work)
        modules = [self.encoder, self.decoder]
        if work.model == "flow":
            self.steps = torch_networks.flow_steps(work)
            modules.append(self.steps)
        parameters = [parameter for module in modules for parameter in module.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=work.lr, fused=True)
        self.batches = torch_networks.batches(work, images)
        self.steps_per_epoch = len(images) // work.batch_size
        self.loss = torch.compile(self.negative_elbo, dynamic=False) if compiled else self.negative_elbo

    def negative_elbo(self, x: Tensor) -> Tensor:
        """Summed over the batch, in nats, with the KL divergence by its formula, or by the sample for a flow."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            loc, raw_scale, *context = self.encoder(x).split([self.work.latent] * 2 + self.context, dim=-1)
            loc = loc.float()
            scale = torch_networks.positive(self.work, raw_scale.float())
            noise = torch.randn_like(loc)
            z = loc + scale * noise
            if context:
                z, log_det = self.steps(*context).call_and_ladj(z)
                kl = 0.5 * (z.square() - noise.square()).sum() - scale.log().sum() - log_det.sum()
            elif self.work.sampled_kl:
                kl = 0.5 * (z.square() - noise.square()).sum() - scale.log().sum()
            else:
                kl = (0.5 * (loc.square() + scale.square() - 1) - scale.log()).sum()
            logits = self.decoder(z)
        return kl + binary_cross_entropy_with_logits(logits.float(), x, reduction="sum")

    @property
    def context(self) -> list[int]:
        return [CONTEXT] if self.work.model == "flow" else []

    def run(self, steps: int) -> float:
        total = torch.zeros((), device=self.work.device)
        for x in islice(self.batches, steps):
            self.optimizer.zero_grad()
            loss = self.loss(x)
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return total.item() / (steps * self.work.batch_size)  # which waits for the device

    def train(self) -> None:
        torch_networks.train(self.work, self.optimizer, lambda: self.run(self.steps_per_epoch))

    def weights(self) -> list[np.ndarray]:
        return torch_networks.weights(self.encoder, self.decoder)
