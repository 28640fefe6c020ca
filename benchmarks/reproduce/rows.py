"""The rows of the table: recipes, each of which trains a VAE of the literature with this library.

A recipe takes the folder with data, the folder of the run, and further options of ``fit``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from pyro_vae import VAE, BottomUp, HierarchicalVAE, TopDown, data, fit, likelihoods, nn, posteriors, priors
from pyro_vae.infer.kl_weight import linear_warm_up
from pyro_vae.infer.losses import CIWAE, ELBO, IWAE, MIWAE, PIWAE
from pyro_vae.training import Run

IMAGE = (1, 28, 28)
SEED = 0


# Images that are binarized anew in every epoch (Burda et al. 2015). All but those of the test are for training.


def one_layer(*_: Tensor) -> VAE:
    return VAE(
        prior=priors.StandardNormal(50),
        likelihood=likelihoods.Bernoulli(nn.mlp(50, [200, 200], IMAGE)),
        posterior=posteriors.Normal(nn.mlp(IMAGE, [200, 200], 2 * 50)),
    )


def two_layers(*_: Tensor) -> HierarchicalVAE:
    return HierarchicalVAE(
        prior=priors.StandardNormal(50),
        layers=[posteriors.Normal(nn.mlp(50, [100, 100], 2 * 100))],
        likelihood=likelihoods.Bernoulli(nn.mlp(100, [200, 200], IMAGE)),
        posterior=BottomUp(
            [posteriors.Normal(nn.mlp(IMAGE, [200, 200], 2 * 100)), posteriors.Normal(nn.mlp(100, [100, 100], 2 * 50))]
        ),
    )


def five_layers(*_: Tensor) -> HierarchicalVAE:
    """A ladder, the lowest layer first: latents of 64, 32, 16, 8 and 4 dimensions, and the widths of their networks."""
    latents, widths = (64, 32, 16, 8, 4), (512, 256, 128, 64, 32)
    inputs = (IMAGE, *widths[:-1])
    layers = [
        posteriors.Normal(nn.mlp(above, [width, width], 2 * latent))
        for above, latent, width in zip(latents[1:], latents[:-1], widths[1:], strict=True)
    ]
    return HierarchicalVAE(
        prior=priors.StandardNormal(latents[-1]),
        layers=layers[::-1],
        likelihood=likelihoods.Bernoulli(nn.mlp(latents[0], [widths[0], widths[0]], IMAGE)),
        posterior=TopDown(
            [nn.mlp(size, [width], width) for size, width in zip(inputs, widths, strict=True)],
            [posteriors.Normal(nn.mlp(width, [], 2 * size)) for width, size in zip(widths, latents, strict=True)],
        ),
    )


def dynamic(
    make: Callable[[Tensor], Any],
    folder: Path | None,
    out: Path,
    *,
    name: str = "mnist",
    epochs: int = 400,
    batch_size: int = 200,
    lr: float = 3e-3,
    **options: Any,
) -> Run:
    images = data.load(name, root=folder, num_valid=0)
    train = torch.cat([images.train, images.valid])
    torch.manual_seed(SEED)
    return fit(
        make(train),
        train,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        scheduler=partial(CosineAnnealingLR, T_max=epochs),
        transform=data.binarize.dynamic,
        seed=SEED,
        out=out,
        resume=True,
        **options,
    )


# The fixed binarization of MNIST (Larochelle & Murray 2011). The weights are those of the best epoch in validation.


def gated(train: Tensor, *, vamp: bool = False) -> VAE:
    posterior = posteriors.Normal(nn.gated_mlp(IMAGE, [300, 300], 2 * 40))
    return VAE(
        prior=vamp_prior(posterior, train) if vamp else priors.StandardNormal(40),
        likelihood=likelihoods.Bernoulli(nn.gated_mlp(40, [300, 300], IMAGE)),
        posterior=posterior,
    )


def ladder(train: Tensor, *, vamp: bool = False) -> HierarchicalVAE:
    features = [nn.gated_mlp(IMAGE, [300], 300), nn.gated_mlp(300, [300], 300)]
    normals = [posteriors.Normal(nn.mlp(300, [], 2 * 40)) for _ in features]
    top = torch.nn.Sequential(*features, normals[-1])  # q(z2 | x)
    return HierarchicalVAE(
        prior=vamp_prior(top, train) if vamp else priors.StandardNormal(40),
        layers=[posteriors.Normal(nn.gated_mlp(40, [300, 300], 2 * 40))],
        likelihood=likelihoods.Bernoulli(nn.gated_mlp(40, [300, 300], IMAGE)),
        posterior=TopDown(features, normals),
    )


def vamp_prior(posterior: torch.nn.Module, train: Tensor) -> priors.VampPrior:
    """500 pseudo-inputs in [0, 1], which begin as images."""
    return priors.VampPrior(torch.nn.Sequential(torch.nn.Hardtanh(0, 1), posterior), train[:500])


def fixed(
    make: Callable[[Tensor], Any],
    folder: Path | None,
    out: Path,
    *,
    epochs: int = 100,
    batch_size: int = 100,
    lr: float = 1e-3,
    **options: Any,
) -> Run:
    mnist = data.load("binarized_mnist", root=folder)
    torch.manual_seed(SEED)
    return fit(
        make(mnist.train),
        mnist.train,
        mnist.valid,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        scheduler=partial(CosineAnnealingLR, T_max=epochs),
        patience=epochs,
        seed=SEED,
        out=out,
        resume=True,
        **{"kl_weight": linear_warm_up(epochs / 5), **options},
    )


WARM_UP = linear_warm_up(40)

RECIPES: dict[str, Callable[..., Run]] = {
    "vae-1-short": partial(dynamic, one_layer, epochs=120, batch_size=100, lr=2e-3),
    "vae-1": partial(dynamic, one_layer, kl_weight=WARM_UP),
    "vae-5": partial(dynamic, one_layer, kl_weight=WARM_UP, loss=ELBO(5)),
    "vae-50": partial(dynamic, one_layer, kl_weight=WARM_UP, loss=ELBO(50)),
    "iwae-5": partial(dynamic, one_layer, loss=IWAE(5), epochs=150),
    "iwae-50": partial(dynamic, one_layer, loss=IWAE(50)),
    "vae-2-layers-1": partial(dynamic, two_layers, kl_weight=WARM_UP),
    "vae-2-layers-5": partial(dynamic, two_layers, kl_weight=WARM_UP, loss=ELBO(5)),
    "vae-2-layers-50": partial(dynamic, two_layers, kl_weight=WARM_UP, loss=ELBO(50)),
    "iwae-2-layers-5": partial(dynamic, two_layers, loss=IWAE(5)),
    "iwae-2-layers-50": partial(dynamic, two_layers, loss=IWAE(50)),
    "miwae": partial(dynamic, one_layer, loss=MIWAE(8, 8)),
    "piwae": partial(dynamic, one_layer, loss=PIWAE(8, 8)),
    "ciwae": partial(dynamic, one_layer, loss=CIWAE(0.05, 64)),
    "ladder": partial(dynamic, five_layers, kl_weight=WARM_UP),
    "omniglot-vae-1": partial(dynamic, one_layer, name="omniglot", kl_weight=WARM_UP),
    "omniglot-iwae-50": partial(dynamic, one_layer, name="omniglot", loss=IWAE(50)),
    "fashion-vae": partial(dynamic, gated, name="fashion_mnist", kl_weight=WARM_UP),
    "fashion-vamp": partial(dynamic, partial(gated, vamp=True), name="fashion_mnist", kl_weight=WARM_UP),
    "vae-1-fixed": partial(fixed, one_layer, epochs=200, batch_size=200, lr=3e-3),
    "iwae-50-fixed": partial(fixed, one_layer, loss=IWAE(50), kl_weight=None),
    "gated-vae": partial(fixed, gated),
    "gated-vamp": partial(fixed, partial(gated, vamp=True)),
    "hvae": partial(fixed, ladder),
    "hvae-vamp": partial(fixed, partial(ladder, vamp=True)),
}
