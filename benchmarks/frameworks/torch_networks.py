"""Networks and batches in plain PyTorch, for those frameworks that bring none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from frameworks.work import CONTEXT, FLOW_HIDDEN, FLOW_STEPS, Work

__all__ = ["batches", "flow_steps", "networks", "positive", "train", "weights"]

ACTIVATIONS = {"silu": nn.SiLU, "softplus": nn.Softplus, "relu": nn.ReLU}


def networks(work: Work) -> tuple[nn.Module, nn.Module]:
    """An encoder ``[n, *image]`` to locations, raw scales (and context); a decoder ``[n, latent]`` to logits."""
    outputs = 2 * work.latent + (CONTEXT if work.model == "flow" else 0)
    if work.model == "conv":
        pair = _convolutional(work, outputs)
    else:
        pair = _mlp(work, [784, work.hidden, outputs]), _mlp(work, [work.latent, work.hidden, 784])
    return pair[0].to(work.device), pair[1].to(work.device)


def _mlp(work: Work, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[work.activation]()]
    if work.initial == "he":
        for hidden in layers[:-2:2]:
            nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
    return nn.Sequential(*layers[:-1])


def _convolutional(work: Work, outputs: int) -> tuple[nn.Module, nn.Module]:
    activation = ACTIVATIONS[work.activation]
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 3, stride=2, padding=1),
        activation(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        activation(),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, outputs),
    )
    decoder = nn.Sequential(
        nn.Linear(work.latent, 64 * 7 * 7),
        nn.Unflatten(-1, (64, 7, 7)),
        activation(),
        nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
        activation(),
        nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),
    )
    for layer in encoder[0], encoder[2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return encoder, decoder


def flow_steps(work: Work) -> nn.Module:
    """Masked networks (zuko's) that bend z given the context, the second in the reverse order."""
    import zuko

    order = torch.arange(work.latent)
    steps = [
        zuko.flows.autoregressive.MaskedAutoregressiveTransform(
            work.latent, CONTEXT, order=order if i % 2 == 0 else order.flip(0), hidden_features=FLOW_HIDDEN,
            activation=ACTIVATIONS[work.activation],
        )
        for i in range(FLOW_STEPS)
    ]  # fmt: skip
    for step in steps:
        nn.init.zeros_(step.hyper[-1].bias)
        with torch.no_grad():
            step.hyper[-1].weight.mul_(0.01)
    return zuko.lazy.LazyComposedTransform(*steps).to(work.device)


def positive(work: Work, raw: Tensor) -> Tensor:
    return raw.exp() if work.scale == "exp" else nn.functional.softplus(raw)


def batches(work: Work, images: np.ndarray) -> Iterator[Tensor]:
    """For ever; each pass in a new order, without what is left over for less than a batch."""
    data = as_images(work, images)
    while True:
        order = torch.randperm(len(data), device=data.device)
        for index in order[: len(data) // work.batch_size * work.batch_size].split(work.batch_size):
            x = data.index_select(0, index)  # on CPUs several times as fast as data[index]
            yield torch.bernoulli(x) if work.dynamic else x


def as_images(work: Work, images: np.ndarray) -> Tensor:
    data = torch.from_numpy(images).to(work.device)
    return data.reshape(-1, 1, 28, 28) if work.model == "conv" else data


def train(work: Work, optimizer: torch.optim.Optimizer, epoch: Callable[[], object]) -> None:
    """Calls ``epoch`` so many times, with the learning rate of each."""
    for i in range(work.epochs):
        if work.decay:
            optimizer.param_groups[0]["lr"] = work.lr * (1 - i / work.epochs)
        epoch()


def weights(*modules: nn.Module) -> list[np.ndarray]:
    return [parameter.detach().cpu().numpy() for module in modules for parameter in module.parameters()]
