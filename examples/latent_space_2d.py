"""Train a VAE with two latent dimensions on MNIST, and look at its latent plane (Kingma & Welling 2013, figure 4b).

You learn what a latent space looks like, and that a straight line in it is a better path between two digits than a
cross-fade of their pictures.

Run: python examples/latent_space_2d.py (less than a minute).

You should see an animation in which the digits separate on the plane during training. Two paths connect pairs of test
digits: the straight line between their codes, and the cross-fade. The log p(x) of the model, for binary images drawn
from the grey levels as in training, falls far more along the cross-fade, which shows two digits at once.
"""

import argparse
import json
import math
from functools import partial

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from pyro_vae import VAE, data, evidence, fit, likelihoods, nn, plots, posteriors, priors
from pyro_vae.plots import new_figure
from pyro_vae.scripts import count, exit_at_interrupt
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder
from pyro_vae.training import Run

IMAGE, HIDDEN = (1, 28, 28), [256, 256]
PAIRS_SHOWN = 3


def build() -> VAE:
    return VAE(
        prior=priors.StandardNormal(2),
        likelihood=likelihoods.Bernoulli(nn.mlp(2, HIDDEN, IMAGE)),
        posterior=posteriors.Normal(nn.mlp(IMAGE, HIDDEN, 2 * 2)),
    )


@torch.no_grad()
def paths(vae: VAE, start: Tensor, end: Tensor, steps: int) -> dict[str, Tensor]:
    """Two paths from codes ``start`` to codes ``end``, both ``[n, 2]``, as images: each ``[n, steps, *IMAGE]``."""
    t = torch.linspace(0, 1, steps, device=start.device)
    line = vae.likelihood(torch.lerp(start[:, None], end[:, None], t[:, None])).mean
    fade = torch.lerp(line[:, :1], line[:, -1:], t[:, None, None, None])
    return {"latent line": line, "cross-fade": fade}


def log_px(vae: VAE, binary: Tensor) -> evidence.Evidence:
    """log p(x) with an error that also holds for images unlike digits, where q is far from the posterior."""
    return evidence.estimate(vae.model, vae.guide, binary)


def entropy(grey: Tensor) -> Tensor:
    """The entropy of Bernoulli pixels with these probabilities, in nats: 0 for black and white, largest for grey."""
    return (torch.special.entr(grey) + torch.special.entr(1 - grey)).flatten(-3).sum(-1)


def judge(vae: VAE, way: Tensor) -> Tensor:
    """log p(x) of binary images drawn from grey levels ``[n, steps, *IMAGE]`` as probabilities, ``[n, steps]``."""
    return log_px(vae, data.binarize.fixed(way.flatten(0, 1))).log_prob.view(way.shape[:2])


def draw_paths(ways: dict[str, Tensor]) -> Figure:
    images = {name: way.flatten(0, 1) for name, way in ways.items()}
    return plots.comparison(images, columns=next(iter(ways.values())).shape[1])


def draw_log_px(judged: dict[str, Tensor], of_digits: float) -> Figure:
    figure = new_figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="position between the two digits", ylabel="log p(x) (nats per image)")
    for name, values in judged.items():
        t = torch.linspace(0, 1, values.shape[1])
        mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
        axes.plot(t, mean, marker=".", label=name)
        axes.fill_between(t, mean - error, mean + error, alpha=0.25)
    axes.axhline(of_digits, color="gray", linestyle="--", label="test digits")
    axes.grid(alpha=0.3)
    axes.set_title("means over pairs of digits, with standard errors", fontsize="medium")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def print_table(title: str, unit: str, values: dict[str, str]) -> None:
    table = Table(title, unit)
    for row in values.items():
        table.add_row(*row)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--epochs", type=count(), default=15, help="passes over the training images; one frame of the animation each"
    )
    parser.add_argument("--images", type=count(), default=20_000, help="number of training images")
    parser.add_argument(
        "--test-images", type=count(), default=1000, help="number of test images to evaluate, at most 10000"
    )
    parser.add_argument("--codes", type=count(), default=2000, help="number of test images whose codes are plotted")
    parser.add_argument("--pairs", type=count(2), default=50, help="number of pairs of test digits")
    parser.add_argument("--steps", type=count(3), default=9, help="images per path, ends included")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--device", help="for example cpu or cuda:1; by default the GPU if there is one")
    parser.add_argument("--out", default="results/latent_space_2d", help="output folder; files in it are overwritten")
    args = parser.parse_args()
    try:  # fail before the long part
        device, out = choose_device(args.device), writable_folder(args.out)
    except (ValueError, OSError) as error:
        parser.error(str(error))

    torch.manual_seed(args.seed)
    mnist = data.load("mnist")
    test, labels = data.binarize.fixed(mnist.test).to(device), mnist.test_labels
    vae = build().to(device)

    # Train, with a picture of the latent space after each epoch.
    frames = []

    def draw(epoch: int) -> None:
        z = vae.encode(test[: args.codes])
        frames.append(plots.latent_space(vae.likelihood, z, labels[: args.codes], title=f"epoch {epoch}"))

    def draw_epoch(run: Run) -> None:
        draw(run.progress.epoch)

    draw(0)
    run = fit(
        vae,
        mnist.train[: args.images].to(device),
        epochs=args.epochs,
        batch_size=200,
        lr=4e-3,
        transform=data.binarize.dynamic,
        scheduler=partial(CosineAnnealingLR, T_max=args.epochs),
        compile=False,  # compiling does not pay off for so few steps
        callbacks=[draw_epoch],
    )
    vae.eval()
    plots.write_gif(frames, out / "training.gif")
    plots.manifold(vae.likelihood).savefig(out / "manifold.png", dpi=80)
    plots.codes(vae.encode(test), labels).savefig(out / "codes.png", dpi=110)

    # How good it is.
    parts = evidence.decompose_elbo(vae.model, vae.guide, test[: args.test_images])
    digits = log_px(vae, test[: args.test_images])
    quality = {"distortion": parts.distortion, "rate": parts.rate, "ELBO": parts.elbo}
    numbers = {name: f"{value:.2f}" for name, value in quality.items()} | {"log p(x)": f"{digits:.2f}"}
    print_table("test digits", "nats per image", numbers)
    print("the error of log p(x) is the half-width of a 95% interval, bias included")

    # Paths between digits: pairs of consecutive test images with different labels.
    follow = (labels[0:-1:2] != labels[1::2]).nonzero()[: args.pairs, 0] * 2
    ways = paths(vae, *(vae.encode(test[index.to(device)]) for index in (follow, follow + 1)), args.steps)
    judged = {name: judge(vae, way) for name, way in ways.items()}
    entropies = {name: entropy(way).mean(0).tolist() for name, way in ways.items()}
    middle = args.steps // 2
    print_table(
        "halfway between two digits",
        "nats per image",
        {f"log p(x), {name}": f"{values[:, middle].mean().item():.2f}" for name, values in judged.items()}
        | {f"entropy of the grey levels, {name}": f"{values[middle]:.2f}" for name, values in entropies.items()},
    )
    gain = judged["latent line"][:, middle] - judged["cross-fade"][:, middle]
    error = gain.std().item() / len(gain) ** 0.5
    print(
        f"halfway, the latent line is more probable by {gain.mean().item():.1f} +- {error:.1f} nats ({len(gain)} pairs)"
    )
    draw_paths({name: way[:PAIRS_SHOWN] for name, way in ways.items()}).savefig(out / "interpolation.png", dpi=120)
    draw_log_px(judged, digits.settled_mean).savefig(out / "interpolation_log_px.png", dpi=120)

    metrics = {
        "seconds_train": run.seconds,
        "test": {
            "distortion": parts.distortion,
            "rate": parts.rate,
            "elbo": parts.elbo,
            "log_px": digits.settled_mean,
            "log_px_error": digits.settled_mean_error if math.isfinite(digits.settled_mean_error) else None,
            "log_px_se": digits.mean_std_error,
            "settled": digits.settled.double().mean().item(),
        },
        "paths": {name: {"log_px": judged[name].mean(0).tolist(), "entropy": entropies[name]} for name in ways},
        "middle_gain": gain.mean().item(),
        "middle_gain_se": error,
        "settings": vars(args),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2))
    names = "training.gif, manifold.png, codes.png, interpolation.png, interpolation_log_px.png"
    print(f"wrote metrics.json, {names} to {out}/")


if __name__ == "__main__":
    exit_at_interrupt(main)
