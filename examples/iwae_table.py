"""More particles in the bound make a better model: table 1 of Burda, Grosse & Salakhutdinov 2015 (arXiv 1509.00519).

You learn how an importance weighted autoencoder (IWAE) differs from a VAE. The IWAE maximizes the log of the mean of k
importance weights, a bound on log p(x) that tightens with k. A VAE with k particles maximizes the mean of their logs,
a bound that does not.

Run: python examples/iwae_table.py (less than a minute: a small part of the training in the paper), or with --full on a
GPU. If it is stopped, the same command resumes it, and does not repeat finished rows.

You should see that with more particles the IWAE gets better and uses more latent units. The VAE only gets gradients
with less noise, which matters most early in training. For k = 1 both are the same.

For each row the table has the negative log-likelihood (NLL) of test images with its error; the NLL estimated as in the
paper, by importance sampling with the guide, which is too high on average; the number of active units; and the NLL in
the paper.
"""

import argparse
import json
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch.optim.lr_scheduler import LambdaLR

from pyro_vae import (
    VAE,
    BottomUp,
    CheckpointError,
    HierarchicalVAE,
    data,
    evidence,
    fit,
    likelihoods,
    nn,
    posteriors,
    priors,
)
from pyro_vae.infer.losses import ELBO, IWAE
from pyro_vae.plots import new_figure
from pyro_vae.scripts import count, exit_at_interrupt, positive
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder
from pyro_vae.system.rows import evenly_spaced
from pyro_vae.training import NotFiniteError, Run

IMAGE = (1, 28, 28)
FULL = {
    "layers": [1, 2],
    "particles": [1, 5, 50],
    "epochs": 3280,
    "images": 60_000,
    "batch_size": 20,
    "lr": 1e-3,
    "test_images": 10_000,
    "num_samples": 5000,
}

# The NLL of IWAEs in the paper, by binarization, number of stochastic layers, and k.
PAPER = {
    ("dynamic", 1): {1: 86.76, 5: 85.54, 50: 84.78},
    ("dynamic", 2): {1: 85.33, 5: 83.89, 50: 82.90},
    ("fixed", 1): {1: 88.71, 5: 87.63, 50: 87.10},
}

COLUMNS = {
    "layers": 6,
    "objective": 9,
    "k": 3,
    "NLL": 15,
    "as in paper": 11,
    "gain over k = 1": 15,
    "active units": 12,
    "seconds": 7,
    "paper's NLL": 11,
}


class Row(NamedTuple):
    """A row of the table. With k = 1 both objectives are the same."""

    layers: int
    objective: str
    k: int

    @property
    def loss(self) -> ELBO | IWAE:
        """The training loss."""
        return IWAE(self.k) if self.objective == "IWAE" else ELBO(self.k)

    @property
    def folder(self) -> str:
        """The name of the folder of this run."""
        return f"{self.layers}-layer-{self.objective.lower()}-{self.k}"

    def paper_nll(self, binarization: str) -> float | None:
        """The NLL in the paper, if it reports one."""
        return None if self.objective == "VAE" else PAPER.get((binarization, self.layers), {}).get(self.k)


def rows(layers: list[int], objectives: list[str], particles: list[int]) -> list[Row]:
    return [
        Row(depth, objective, k)
        for depth in sorted(set(layers))
        for k in sorted(set(particles))
        for objective in (sorted(set(objectives), reverse=True) if k > 1 else ["IWAE"])
    ]


def build(layers: int, mean_image: torch.Tensor) -> VAE | HierarchicalVAE:
    """The networks of the paper: two hidden layers of tanh units for each conditional distribution."""

    def mlp(inputs: int | tuple[int, ...], width: int, outputs: int | tuple[int, ...]) -> torch.nn.Sequential:
        return nn.mlp(inputs, [width, width], outputs, activation=torch.nn.Tanh)

    vae: VAE | HierarchicalVAE
    if layers == 1:
        vae = VAE(
            prior=priors.StandardNormal(50),
            likelihood=likelihoods.Bernoulli(mlp(50, 200, IMAGE)),
            posterior=posteriors.Normal(mlp(IMAGE, 200, 2 * 50)),
        )
    else:
        vae = HierarchicalVAE(
            prior=priors.StandardNormal(50),
            layers=[posteriors.Normal(mlp(50, 100, 2 * 100))],
            likelihood=likelihoods.Bernoulli(mlp(100, 200, IMAGE)),
            posterior=BottomUp([posteriors.Normal(mlp(IMAGE, 200, 2 * 100)), posteriors.Normal(mlp(100, 100, 2 * 50))]),
        )
    for module in vae.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)  # Glorot & Bengio 2010
            torch.nn.init.zeros_(module.bias)
    *_, output = (module for module in vae.likelihood.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():  # the decoder starts with the mean image
        output.bias.copy_(mean_image.flatten().clamp(0.001, 0.999).logit())
    return vae


def decay(step: int, steps_per_epoch: int, epochs: int) -> float:
    """The factor of the learning rate: 10^(-i / 7) in stage i of eight. Each stage is longer than the one before.

    For the 3280 epochs of the paper, stage i lasts 3^i epochs. In general, stages grow by a factor of
    (1 + 2 epochs)^(1 / 8).
    """
    done = (step + 0.5) / steps_per_epoch  # the middle of a step, where rounding cannot change the stage
    stage = int(8 * math.log1p(2 * done) / math.log1p(2 * epochs))
    return 10 ** (-min(stage, 7) / 7)


def train(vae: VAE | HierarchicalVAE, row: Row, images: torch.Tensor, args: argparse.Namespace, out: Path) -> Run:
    rate = partial(decay, steps_per_epoch=-(-len(images) // args.batch_size), epochs=args.epochs)
    return fit(
        vae,
        images,
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        loss=row.loss,
        transform=data.binarize.dynamic if args.binarization == "dynamic" else None,
        optimizer=partial(torch.optim.Adam, eps=1e-4),
        scheduler=partial(LambdaLR, lr_lambda=rate),
        scheduler_every="step",
        precision=args.precision,
        seed=args.seed,
        out=out,
        resume=True,
    )


def active_units(vae: VAE | HierarchicalVAE, test: torch.Tensor) -> list[int]:
    """The number of units whose posterior mean has a variance over the data above 0.01 (section 5.2), by layer.

    The first layer is next to the data. 100 particles are enough that noise does not look like activity.
    """
    parts = evidence.decompose_elbo(vae.model, vae.guide, test, num_particles=100, num_marginal=2)
    return [int(active.sum()) for _, active in sorted(parts.active.items())]


def load(args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Training images, and binary test images."""
    if args.binarization == "fixed":
        mnist = data.load("binarized_mnist", args.data)
        train, test = mnist.train, mnist.test
    else:
        mnist = data.load("mnist", num_valid=0)
        train, test = mnist.train, data.binarize.fixed(mnist.test)
    return train[: args.images], test[evenly_spaced(len(test), args.test_images)]


def line(result: dict[str, Any]) -> str:
    """A row of the table, as text."""
    columns = [
        f"{result['layers']}",
        "either" if result["k"] == 1 else result["objective"],
        f"{result['k']}",
        f"{result['nll']:.2f} +- {result['nll_error']:.2f}" if result["nll_error"] else f"<= {result['nll']:.2f}",
        f"{result['nll_importance']:.2f}",
        "" if result["gain"] is None else f"{result['gain']:.2f} +- {result['gain_se']:.2f}",
        "+".join(map(str, result["active_units"])),
        f"{result['seconds']:.0f}",
        "" if result["paper_nll"] is None else f"{result['paper_nll']:.2f}",
    ]
    return in_columns(columns)


def in_columns(words: list[str]) -> str:
    return "  ".join(f"{word:>{width}}" for word, width in zip(words, COLUMNS.values(), strict=True))


def draw(results: list[dict[str, Any]]) -> Figure:
    """NLL against k, one panel for each depth, with the number of active units at each point."""
    depths = sorted({result["layers"] for result in results})
    figure = new_figure(figsize=(1 + 4 * len(depths), 4), layout="constrained")
    for axes, depth in zip(figure.subplots(1, len(depths), squeeze=False)[0], depths, strict=True):
        of_depth = [result for result in results if result["layers"] == depth]
        for objective, colour in (("VAE", "C1"), ("IWAE", "C0")):
            points = [result for result in of_depth if result["k"] == 1 or result["objective"] == objective]
            k, nll = ([point[name] for point in points] for name in ("k", "nll"))
            axes.plot(k, nll, "o-", color=colour, label=objective)
            for point in points:
                units = "+".join(map(str, point["active_units"]))
                axes.annotate(units, (point["k"], point["nll"]), (7, 0), textcoords="offset points", va="center")
        axes.set(title=f"{depth} stochastic layer{'s' * (depth > 1)}", xlabel="particles k", xscale="log")
        axes.set_xticks(ticks := sorted({result["k"] for result in of_depth}), map(str, ticks))
        axes.minorticks_off()
        axes.margins(0.2, 0.1)
        axes.grid(alpha=0.3)
        axes.set_ylabel("negative log-likelihood (nats per image)")
        axes.legend(title="numbers: active units")
    return figure


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--full", action="store_true", help="use the sizes of the paper, except for options given explicitly")
    add("--layers", type=int, choices=[1, 2], nargs="+", default=[1], help="numbers of stochastic layers")
    add(
        "--objectives",
        choices=["VAE", "IWAE"],
        nargs="+",
        default=["VAE", "IWAE"],
        help="objectives to train for k > 1",
    )
    add("--particles", type=count(), nargs="+", default=[1, 5], metavar="K", help="numbers of particles in the bound")
    add("--epochs", type=count(), default=2, help="passes over the training images")
    add("--images", type=count(), default=60_000, help="largest number of training images")
    add("--batch-size", type=count(), default=100, help="images per step")
    add("--lr", type=positive, default=7e-3, help="initial learning rate of Adam; decays to a tenth")
    add(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="precision of matrix products in training",
    )
    add(
        "--binarization",
        choices=["dynamic", "fixed"],
        default="dynamic",
        help="dynamic, or the fixed one of the literature (needs --data)",
    )
    add("--data", type=Path, metavar="FOLDER", help="folder with the fixed binarization of the literature")
    add("--test-images", type=count(2), default=200, help="largest number of test images")
    add("--num-samples", type=count(2), default=500, help="samples of importance sampling, as in the paper")
    add("--max-temperatures", type=count(), default=512, help="largest number of temperatures of an annealed chain")
    add("--seed", type=int, default=0, help="random seed, the same for all rows")
    add("--device", help="for example cpu or cuda:1; by default the GPU if there is one")
    add("--out", default="results/iwae_table", help="output folder; a stopped run in it is resumed")
    return parser


def main() -> None:
    parser = arguments()
    if parser.parse_known_args()[0].full:
        parser.set_defaults(**FULL)
    args = parser.parse_args()
    if args.data is not None and args.binarization != "fixed":
        parser.error("--data is for --binarization fixed")
    try:  # fail before the long part
        device, out = choose_device(args.device), writable_folder(args.out)
        images, test = (x.to(device) for x in load(args))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{len(images)} images, {args.epochs} epochs, batches of {args.batch_size}, {args.binarization} binarization")
    print(f"NLL: mean over {len(test)} test images, in nats, with 95% errors, bias included. 'as in paper': importance")
    print(f"sampling with the guide and {args.num_samples} samples, which is too high on average.")
    print(in_columns(list(COLUMNS)))
    results: list[dict[str, Any]] = []
    log_px_of_one: dict[int, evidence.Evidence] = {}  # by depth: log p(x) of the test images, where k is 1
    for row in rows(args.layers, args.objectives, args.particles):
        torch.manual_seed(args.seed)
        vae = build(row.layers, images.mean(0)).to(device)
        folder = out / row.folder
        try:
            run = train(vae, row, images, args, folder)
            vae.eval()
            programs = vae.model, vae.guide
            log_px = evidence.estimate(
                *programs, test, max_temperatures=args.max_temperatures, keep=folder / "evidence.pt"
            )
            as_in_paper = evidence.importance(
                *programs, test, num_samples=args.num_samples, keep=folder / "importance.pt"
            )
        except (CheckpointError, NotFiniteError, ValueError, OSError) as error:
            parser.error(str(error))
        of_one = log_px_of_one.get(row.layers)
        gain = (
            None if of_one is None else evidence.compare(log_px, of_one)
        )  # the difference for each image cancels most of the scatter
        if row.k == 1:
            log_px_of_one[row.layers] = log_px
        gain = gain if gain is not None and gain.settled.any() else None
        is_known = math.isfinite(log_px.settled_mean_error)
        results.append(
            {
                **row._asdict(),
                "nll": -log_px.settled_mean,
                "nll_error": log_px.settled_mean_error if is_known else None,
                "nll_se": log_px.mean_std_error,
                "settled": log_px.settled.double().mean().item(),
                "nll_importance": -as_in_paper.mean,
                "gain": None if gain is None else gain.mean,
                "gain_error": None if gain is None else gain.mean_error,
                "gain_se": None if gain is None else gain.population_std_error,
                "active_units": active_units(vae, test),
                "paper_nll": row.paper_nll(args.binarization),
                "seconds": run.seconds,
            }
        )
        print(line(results[-1]), flush=True)
        content = {"settings": vars(args), "rows": results}
        (out / "table.json").write_text(json.dumps(content, indent=2, default=str))
    draw(results).savefig(out / "iwae_table.png", dpi=150)
    if any(vars(args)[name] != FULL[name] for name in FULL.keys() - {"layers", "particles"}):
        print("This is less training than in the paper (--full): not to be compared with its numbers.")
    print(f"wrote table.json, iwae_table.png and one folder per row to {out}/")


if __name__ == "__main__":
    exit_at_interrupt(main, "interrupted; the same command resumes it")
