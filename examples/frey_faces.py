"""With a normal likelihood whose scale is learned, a VAE finds out by itself how exactly it can describe its data.

Trains VAEs with 2 and with 10 latents on the video of Frey Face, without its last frames: the data and the manifold of
Kingma & Welling 2013, figure 4a. The derivative of the ELBO by the one scale that all pixels share is zero where it is
the root mean square of x - mean(z), over the data and under q(z | x) (Rybkin et al. 2021): so the learned scale
must be the error of reconstructions. It is that of training frames; of frames unlike them the model is too sure.
"""

import argparse
import json
import math
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from pyro_vae import VAE, data, evidence, fit, likelihoods, nn, plots, posteriors, priors
from pyro_vae.scripts import count, exit_at_interrupt
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder

IMAGE, HIDDEN = (1, 28, 20), [200]
LEVELS = 255  # grey levels in a unit of the data
QUANTITIES = {
    "scale": "learned scale (grey levels)",
    "train_error": "error of reconstructions, training frames (grey levels)",
    "test_error": "error of reconstructions, unseen frames (grey levels)",
    "train_elbo": "ELBO, training frames (nats)",
    "test_elbo": "ELBO, unseen frames (nats)",
    "train_log_px": "log p(x), training frames (nats)",
    "train_log_px_error": "  its error (95%, bias included)",
    "test_log_px": "log p(x), unseen frames (nats)",
    "test_log_px_error": "  its error (95%, bias included)",
    "train_bits_per_pixel": "at most so many bits per pixel, training frames",
    "test_bits_per_pixel": "at most so many bits per pixel, unseen frames",
    "test_settled": "part of unseen frames whose log p(x) is known",
}


def build(latent_dim: int) -> VAE:
    """A hidden layer of 200 tanh units, and means that a sigmoid keeps in [0, 1], as in Kingma & Welling 2013."""
    means = torch.nn.Sequential(nn.mlp(latent_dim, HIDDEN, IMAGE, torch.nn.Tanh), torch.nn.Sigmoid())
    return VAE(
        prior=priors.StandardNormal(latent_dim),
        likelihood=likelihoods.Normal(means, likelihoods.PositiveParameter(0.2)),
        posterior=posteriors.Normal(nn.mlp(IMAGE, HIDDEN, 2 * latent_dim, torch.nn.Tanh)),
    )


def dequantize(x: Tensor) -> Tensor:
    """Undoes the rounding of pixels to grey levels, by noise that is uniform within a level."""
    return x + (torch.rand_like(x) - 0.5) / LEVELS


def bits_per_pixel(log_density: float) -> float:
    """An upper bound on -log2 of the probability of the 8-bit pixels, for their dequantized log density in nats.

    The density of dequantized data is, on average, at most the log of its integral over the level (Theis et al. 2016,
    section 3.1): of the probability that a discrete model has. A level is 1 / 255 wide.
    """
    return (math.log(LEVELS) - log_density / math.prod(IMAGE)) / math.log(2)


@torch.no_grad()
def residual(vae: VAE, x: Tensor) -> float:
    """The root mean square of x - mean(z), for a draw of z from q(z | x); in units of the data."""
    return (x - vae.likelihood(vae.posterior(x).sample()).mean).square().mean().sqrt().item()


def evaluate(vae: VAE, parts: dict[str, Tensor]) -> dict[str, float]:
    numbers = {"scale": LEVELS * vae.likelihood.scale().item()}
    for name, frames in parts.items():
        x = dequantize(frames)
        spread = x[:: len(x) // 150]  # over the whole stretch of time; neighbours would tell little more
        result = evidence.estimate(vae.model, vae.guide, spread)
        numbers |= {
            f"{name}_error": LEVELS * residual(vae, x),
            f"{name}_elbo": evidence.importance(vae.model, vae.guide, spread, num_samples=100).elbo.mean().item(),
            f"{name}_log_px": result.settled_mean,
            f"{name}_log_px_error": result.settled_mean_error,
            f"{name}_log_px_se": result.mean_std_error,
            f"{name}_bits_per_pixel": bits_per_pixel(result.settled_mean),
            f"{name}_settled": result.settled.double().mean().item(),
        }
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("data", metavar="FOLDER", help="with frey_faces.npz or frey_rawface.mat")
    parser.add_argument("--latent-dims", type=count(), nargs="+", default=[2, 10], help="a VAE is trained for each")
    parser.add_argument("--epochs", type=count(), default=100, help="passes over the 1565 training frames")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="such as cpu or cuda:1; if not given, the GPU if there is one")
    parser.add_argument("--out", default="results/frey_faces", help="folder to write to, over what is there")
    args = parser.parse_args()
    try:  # before any work that could be lost
        device, out = choose_device(args.device), writable_folder(args.out)
        faces = data.load("frey_faces", args.data)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))

    torch.manual_seed(args.seed)
    train, valid, test = (part.to(device) for part in (faces.train, faces.valid, faces.test))
    numbers, losses, samples = {}, {}, {}
    versions = {"unseen": test[::20]}
    for latent_dim in args.latent_dims:
        vae = build(latent_dim).to(device)
        run = fit(
            vae,
            train,
            valid,
            epochs=args.epochs,
            batch_size=100,
            lr=4e-3,
            transform=dequantize,
            scheduler=partial(CosineAnnealingLR, T_max=args.epochs),
            compile=False,  # takes longer than it saves in so few steps
        )
        vae.eval()
        name = f"{latent_dim} latents"
        numbers[name] = evaluate(vae, {"train": train, "test": test})
        losses |= {f"{name}, {part}": [row[f"{part}_loss"] for row in run.history] for part in ("train", "valid")}
        samples[name] = vae.likelihood(vae.prior().sample((24,))).mean
        versions[name] = vae.reconstruct(versions["unseen"])
        if latent_dim == 2:
            plots.manifold(vae.likelihood, columns=15, cmap="gray").savefig(out / "manifold.png", dpi=80)

    table = Table("", *numbers)
    for key, quantity in QUANTITIES.items():
        table.add_row(quantity, *(f"{row[key]:.2f}" for row in numbers.values()))
    Console(width=120).print(table)
    print(
        "The nats are of densities, with a grey range of 1; an error of inf marks a lower bound. The bits are those\n"
        "of a model of 8-bit pixels, and can be compared with other such models."
    )
    plots.curves(losses).savefig(out / "loss.png", dpi=120)
    plots.comparison(samples, columns=12, cmap="gray").savefig(out / "samples.png", dpi=100)
    plots.comparison(versions, cmap="gray").savefig(out / "reconstructions.png", dpi=100)
    models = {  # JSON has no infinity
        name: {key: value if math.isfinite(value) else None for key, value in row.items()}
        for name, row in numbers.items()
    }
    metrics = {"models": models, "losses": losses, "settings": vars(args)}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(f"wrote metrics.json and pictures to {out}/")


if __name__ == "__main__":
    exit_at_interrupt(main)
