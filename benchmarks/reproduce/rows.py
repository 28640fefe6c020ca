"""The rows of the table: a recipe that trains a VAE of the literature with this library, and what its paper reports.

A recipe takes the folder with data, the folder of the run, and further options of ``fit``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from pyro_vae import VAE, BottomUp, HierarchicalVAE, TopDown, data, fit, likelihoods, nn, posteriors, priors
from pyro_vae.infer.kl_weight import linear_warm_up
from pyro_vae.infer.losses import ELBO, IWAE
from pyro_vae.training import Run

IMAGE = (1, 28, 28)
SEED = 0


# MNIST, binarized anew in every epoch (Burda et al. 2015). All 60000 images are for training.


def one_layer() -> VAE:
    return VAE(
        prior=priors.StandardNormal(50),
        likelihood=likelihoods.Bernoulli(nn.mlp(50, [200, 200], IMAGE)),
        posterior=posteriors.Normal(nn.mlp(IMAGE, [200, 200], 2 * 50)),
    )


def two_layers() -> HierarchicalVAE:
    return HierarchicalVAE(
        prior=priors.StandardNormal(50),
        layers=[posteriors.Normal(nn.mlp(50, [100, 100], 2 * 100))],
        likelihood=likelihoods.Bernoulli(nn.mlp(100, [200, 200], IMAGE)),
        posterior=BottomUp(
            [posteriors.Normal(nn.mlp(IMAGE, [200, 200], 2 * 100)), posteriors.Normal(nn.mlp(100, [100, 100], 2 * 50))]
        ),
    )


def dynamic(make: Callable[[], Any], folder: Path, out: Path, *, epochs: int = 120, **options: Any) -> Run:  # noqa: ARG001
    torch.manual_seed(SEED)
    return fit(
        make(),
        data.load("mnist", num_valid=0).train,
        epochs=epochs,
        batch_size=100,
        lr=2e-3,
        scheduler=partial(CosineAnnealingLR, T_max=epochs),
        transform=data.binarize.dynamic,
        seed=SEED,
        out=out,
        resume=True,
        **options,
    )


# The fixed binarization of MNIST (Larochelle & Murray 2011). The weights are those of the best epoch in validation.


def gated(prior: Callable[[torch.nn.Module, Tensor], torch.nn.Module], train: Tensor) -> VAE:
    posterior = posteriors.Normal(nn.gated_mlp(IMAGE, [300, 300], 2 * 40))
    return VAE(
        prior=prior(posterior, train),
        likelihood=likelihoods.Bernoulli(nn.gated_mlp(40, [300, 300], IMAGE)),
        posterior=posterior,
    )


def standard_normal(posterior: torch.nn.Module, train: Tensor) -> torch.nn.Module:  # noqa: ARG001
    return priors.StandardNormal(40)


def vamp(posterior: torch.nn.Module, train: Tensor) -> torch.nn.Module:
    return priors.VampPrior(torch.nn.Sequential(torch.nn.Hardtanh(0, 1), posterior), train[:500])


def ladder(train: Tensor) -> HierarchicalVAE:  # noqa: ARG001
    return HierarchicalVAE(
        prior=priors.StandardNormal(40),
        layers=[posteriors.Normal(nn.gated_mlp(40, [300, 300], 2 * 40))],
        likelihood=likelihoods.Bernoulli(nn.gated_mlp(40, [300, 300], IMAGE)),
        posterior=TopDown(
            [nn.gated_mlp(IMAGE, [300], 300), nn.gated_mlp(300, [300], 300)],
            [posteriors.Normal(nn.mlp(300, [], 2 * 40)) for _ in range(2)],
        ),
    )


def fixed(make: Callable[[Tensor], Any], folder: Path, out: Path, *, epochs: int = 100, **options: Any) -> Run:
    mnist = data.load("binarized_mnist", root=folder)
    torch.manual_seed(SEED)
    return fit(
        make(mnist.train),
        mnist.train,
        mnist.valid,
        epochs=epochs,
        batch_size=100,
        lr=1e-3,
        scheduler=partial(CosineAnnealingLR, T_max=epochs),
        kl_weight=linear_warm_up(epochs / 5),
        patience=epochs,
        seed=SEED,
        out=out,
        resume=True,
        **options,
    )


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        model: What it is, in words.
        test: The test images: ``"dynamic"``, MNIST's in a fixed draw of their own, or ``"fixed"``, the literature's.
        paper: The paper's mean log p(x) of the test images, in nats.
        source: Where the paper reports it.
        num_samples: The number of samples from the guide for each image, with which the paper estimates log p(x).
        train: The recipe.
    """

    model: str
    test: str
    paper: float
    source: str
    num_samples: int
    train: Callable[..., Run]


BURDA, TOMCZAK = "Burda et al. 2015, table 1", "Tomczak & Welling 2018, table 1"
ONE, TWO = "784-200-200-50", "784-200-200-100-100-100-50"
GATED = "784-300-300-40, gated"
ROWS = {
    "vae-1": Row(f"VAE, {ONE}, k = 1", "dynamic", -86.76, BURDA, 5000, partial(dynamic, one_layer)),
    "vae-5": Row(f"VAE, {ONE}, k = 5", "dynamic", -86.47, BURDA, 5000, partial(dynamic, one_layer, loss=ELBO(5))),
    "iwae-5": Row(f"IWAE, {ONE}, k = 5", "dynamic", -85.54, BURDA, 5000, partial(dynamic, one_layer, loss=IWAE(5))),
    "vae-2-layers-1": Row(
        f"VAE, {TWO}, k = 1", "dynamic", -85.33, BURDA, 5000, partial(dynamic, two_layers, kl_weight=linear_warm_up(20))
    ),
    "iwae-2-layers-5": Row(
        f"IWAE, {TWO}, k = 5", "dynamic", -83.89, BURDA, 5000, partial(dynamic, two_layers, loss=IWAE(5))
    ),
    "gated-vae": Row(f"VAE, {GATED}", "fixed", -88.56, TOMCZAK, 5000, partial(fixed, partial(gated, standard_normal))),
    "gated-vamp": Row(
        f"VampPrior of 500, {GATED}", "fixed", -85.57, TOMCZAK, 5000, partial(fixed, partial(gated, vamp))
    ),
    "hvae": Row("HVAE, two layers of 40, gated", "fixed", -86.05, TOMCZAK, 5000, partial(fixed, ladder)),
}
