"""Swap priors, posteriors, networks and depth on MNIST, with the same budget, and compare them in one table.

You learn that swapping a part is passing another module, and what each part changes.

Run: python examples/swap_parts.py, or with the fixed binarization of the literature: --binarized FOLDER.

You should see, for each model, the ELBO and log p(x) of test images with its error, the number of parameters and the
seconds of training. Learned priors have a larger log p(x) than the standard normal prior.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import zuko
from pyro.infer import Trace_ELBO
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from pyro_vae import SVI, VAE, BottomUp, HierarchicalVAE, TopDown, data, evidence, likelihoods, nn, posteriors, priors
from pyro_vae.scripts import count, exit_at_interrupt, positive
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder
from pyro_vae.system.rows import evenly_spaced

IMAGE, LATENT, HIDDEN = (1, 28, 28), 40, [300, 300]
CONTEXT = 60


def decoder() -> torch.nn.Module:
    return likelihoods.Bernoulli(nn.mlp(LATENT, HIDDEN, IMAGE))


def encoder(outputs: int = 2 * LATENT) -> torch.nn.Module:
    return nn.mlp(IMAGE, HIDDEN, outputs)


def with_prior(prior: torch.nn.Module) -> VAE:
    return VAE(prior, decoder(), posteriors.Normal(encoder()))


def with_posterior(posterior: torch.nn.Module) -> VAE:
    return VAE(priors.StandardNormal(LATENT), decoder(), posterior)


def vamp(images: torch.Tensor) -> VAE:
    posterior = posteriors.Normal(encoder())
    return VAE(priors.VampPrior(posterior, images[:200]), decoder(), posterior)


def two_layers(posterior: torch.nn.Module) -> HierarchicalVAE:
    """z1 has as many dimensions as the latents of the other models, and z2 half as many."""
    return HierarchicalVAE(
        priors.StandardNormal(LATENT // 2),
        [posteriors.Normal(nn.mlp(LATENT // 2, [100], 2 * LATENT))],
        decoder(),
        posterior,
    )


def bottom_up() -> HierarchicalVAE:
    upper = posteriors.Normal(nn.mlp(LATENT, [100], LATENT))
    return two_layers(BottomUp([posteriors.Normal(encoder()), upper]))


def ladder() -> HierarchicalVAE:
    features = [nn.mlp(IMAGE, HIDDEN, 100), nn.mlp(100, [100], 100)]
    return two_layers(
        TopDown(features, [posteriors.Normal(nn.mlp(100, [], 2 * size)) for size in (LATENT, LATENT // 2)])
    )


def convolutional() -> VAE:
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(nn.convolutional_decoder(LATENT, IMAGE)),
        posteriors.Normal(nn.convolutional_encoder(IMAGE, 2 * LATENT)),
    )


def combinations(images: torch.Tensor) -> dict[str, Callable[[], VAE | HierarchicalVAE]]:
    """The models to compare, by name, each with a function that builds it. The images are used as pseudo-inputs."""
    return {
        "standard normal prior, normal posterior": lambda: with_prior(priors.StandardNormal(LATENT)),
        "mixture prior": lambda: with_prior(priors.Mixture(LATENT, 100)),
        "VampPrior": partial(vamp, images),
        "flow prior": lambda: with_prior(zuko.flows.MAF(LATENT, transforms=3, hidden_features=[128])),
        "full covariance": lambda: with_posterior(posteriors.FullNormal(encoder(LATENT + LATENT * (LATENT + 1) // 2))),
        "IAF posterior": lambda: with_posterior(
            posteriors.InverseAutoregressive(encoder(2 * LATENT + CONTEXT), LATENT, CONTEXT)
        ),
        "spline posterior": lambda: with_posterior(
            posteriors.NeuralSpline(encoder(2 * LATENT + CONTEXT), LATENT, CONTEXT)
        ),
        "two layers, bottom-up": bottom_up,
        "two layers, ladder": ladder,
        "convolutional networks": convolutional,
    }


def train(vae: VAE | HierarchicalVAE, batches: data.Batches, args: argparse.Namespace, name: str) -> None:
    optimizer = torch.optim.Adam(vae.parameters(), lr=args.lr)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=args.epochs)
    svi = SVI(vae.model, vae.guide, optimizer, Trace_ELBO())
    for _ in track(range(args.epochs), name, transient=True):
        svi.epoch(batches)
        decay.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--epochs", type=count(), default=3, help="passes over the training images")
    parser.add_argument("--images", type=count(), default=10_000, help="number of training images")
    parser.add_argument("--test-images", type=count(), default=200, help="number of test images")
    parser.add_argument(
        "--max-temperatures", type=count(), default=512, help="largest number of temperatures of an annealed chain"
    )
    parser.add_argument("--batch-size", type=count(), default=100, help="images per step")
    parser.add_argument("--lr", type=positive, default=2e-3, help="learning rate of Adam; decays linearly")
    parser.add_argument("--only", nargs="+", help="names of models, or how their names begin")
    parser.add_argument("--binarized", type=Path, metavar="FOLDER", help="folder with the fixed binarization of MNIST")
    parser.add_argument("--seed", type=int, default=0, help="random seed, the same for all models")
    parser.add_argument("--device", help="for example cpu or cuda:1; by default the GPU if there is one")
    parser.add_argument("--out", default="results/swap_parts", help="output folder; table.json in it is overwritten")
    args = parser.parse_args()
    try:  # fail before the long part
        device, out = choose_device(args.device), writable_folder(args.out)
        mnist = data.load("binarized_mnist", args.binarized) if args.binarized else data.load("mnist")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    images = mnist.train[: args.images].to(device)
    test = mnist.test if args.binarized else data.binarize.fixed(mnist.test)
    test = test[evenly_spaced(len(test), args.test_images)].to(device)
    transform = None if args.binarized else data.binarize.dynamic
    chosen = {
        name: build
        for name, build in combinations(images).items()
        if args.only is None or name.startswith(tuple(args.only))
    }
    if not chosen:
        parser.error(f"--only {' '.join(args.only)}: there are {', '.join(combinations(images))}")
    table = Table(Column(no_wrap=True), "ELBO", Column("log p(x)", no_wrap=True), "settled", "parameters", "seconds")
    rows = {}
    for name, build in chosen.items():
        torch.manual_seed(args.seed)
        vae = build().to(device)
        start = time.perf_counter()
        train(vae, data.Batches(images, args.batch_size, transform=transform), args, name)
        seconds = time.perf_counter() - start
        vae.eval()
        result = evidence.estimate(vae.model, vae.guide, test, max_temperatures=args.max_temperatures)
        elbo = evidence.importance(vae.model, vae.guide, test, num_samples=100).elbo
        error = result.settled_mean_error
        rows[name] = {
            "elbo": elbo.mean().item(),
            "log_px": result.settled_mean,
            "log_px_error": error if math.isfinite(error) else None,
            "log_px_se": result.mean_std_error,
            "settled": result.settled.double().mean().item(),
            "parameters": sum(parameter.numel() for parameter in vae.parameters()),
            "seconds": seconds,
        }
        table.add_row(
            name,
            f"{rows[name]['elbo']:.2f}",
            f"{result:.2f}",
            f"{rows[name]['settled']:.1%}",
            f"{rows[name]['parameters']:,}",
            f"{seconds:.0f}",
        )
        (out / "table.json").write_text(json.dumps({"settings": vars(args), "rows": rows}, indent=2, default=str))
    Console(width=120).print(table)
    print(
        f"Nats per image, on the same {len(test)} test images for all models; log p(x) with 95% errors, bias included; "
        f"settled is the fraction of images whose error is known. Wrote {out}/table.json"
    )


if __name__ == "__main__":
    exit_at_interrupt(main)
