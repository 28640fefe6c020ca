"""Train VAEs with a learned noise scale on the video of Frey Face (Kingma & Welling 2013, figure 4a).

You learn that the learned scale of a normal likelihood becomes equal to the reconstruction error, and where this
misleads.

Run: python examples/frey_faces.py FOLDER, with a folder that holds frey_faces.npz or frey_rawface.mat (a minute).

You should see that the learned scale equals the reconstruction error of the training frames, with 2 and with 10
latents. On unseen frames the model is overconfident: with 10 latents their reconstruction error is smaller, but so is
log p(x).

Why: the derivative of the ELBO with respect to the scale that all pixels share is zero where the scale is the root
mean square of x - mean(z), over the data and under q(z | x) (Rybkin et al. 2021).
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
LEVELS = 255  # grey levels per unit of the data
QUANTITIES = {
    "scale": "learned scale (grey levels)",
    "train_error": "reconstruction error, training frames (grey levels)",
    "test_error": "reconstruction error, unseen frames (grey levels)",
    "train_elbo": "ELBO, training frames (nats)",
    "test_elbo": "ELBO, unseen frames (nats)",
    "train_log_px": "log p(x), training frames (nats)",
    "train_log_px_error": "  error (95%, bias included)",
    "test_log_px": "log p(x), unseen frames (nats)",
    "test_log_px_error": "  error (95%, bias included)",
    "train_bits_per_pixel": "upper bound on bits per pixel, training frames",
    "test_bits_per_pixel": "upper bound on bits per pixel, unseen frames",
    "test_settled": "fraction of unseen frames whose log p(x) has an error",
}


def build(latent_dim: int) -> VAE:
    """One hidden layer of 200 tanh units, and a sigmoid for means in [0, 1], as in Kingma & Welling 2013."""
    means = torch.nn.Sequential(nn.mlp(latent_dim, HIDDEN, IMAGE, torch.nn.Tanh), torch.nn.Sigmoid())
    return VAE(
        prior=priors.StandardNormal(latent_dim),
        likelihood=likelihoods.Normal(means, likelihoods.PositiveParameter(0.2)),
        posterior=posteriors.Normal(nn.mlp(IMAGE, HIDDEN, 2 * latent_dim, torch.nn.Tanh)),
    )


def dequantize(x: Tensor) -> Tensor:
    """Undoes the rounding of pixels to grey levels, by adding noise that is uniform within a level."""
    return x + (torch.rand_like(x) - 0.5) / LEVELS


def bits_per_pixel(log_density: float) -> float:
    """An upper bound on the bits per 8-bit pixel, from the log density of dequantized pixels in nats.

    On average, the log density of dequantized data is at most the log of its integral over the level (Theis et al.
    2016, section 3.1), and this integral is the probability under a discrete model. A level is 1 / 255 wide.
    """
    return (math.log(LEVELS) - log_density / math.prod(IMAGE)) / math.log(2)


@torch.no_grad()
def residual(vae: VAE, x: Tensor) -> float:
    """The root mean square of x - mean(z), for one draw of z from q(z | x), in units of the data."""
    return (x - vae.likelihood(vae.posterior(x).sample()).mean).square().mean().sqrt().item()


def evaluate(vae: VAE, parts: dict[str, Tensor]) -> dict[str, float]:
    numbers = {"scale": LEVELS * vae.likelihood.scale().item()}
    for name, frames in parts.items():
        x = dequantize(frames)
        spread = x[:: len(x) // 150]  # spread over time, because neighbouring frames are nearly the same
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
    parser.add_argument("data", metavar="FOLDER", help="folder with frey_faces.npz or frey_rawface.mat")
    parser.add_argument(
        "--latent-dims",
        type=count(),
        nargs="+",
        default=[2, 10],
        help="numbers of latent dimensions; trains one VAE for each",
    )
    parser.add_argument("--epochs", type=count(), default=100, help="passes over the 1565 training frames")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--device", help="for example cpu or cuda:1; by default the GPU if there is one")
    parser.add_argument("--out", default="results/frey_faces", help="output folder; files in it are overwritten")
    args = parser.parse_args()
    try:  # fail before the long part
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
            compile=False,  # compiling does not pay off for so few steps
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
        "Nats are for densities of grey levels in [0, 1]. An error of inf marks a lower bound. Bits are for a\n"
        "model of 8-bit pixels, and can be compared with other such models."
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
