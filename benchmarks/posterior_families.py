"""log p(x) against the time of training, for each family of posteriors, and the parts of its inference gap.

All families have the same prior, likelihood, data (MNIST, binarized anew in every epoch) and budget of CPU time, and
the network of each posterior has the same hidden layers. At some times of training, with the averages of the weights,
test images are evaluated: log p(x) by ``evidence.estimate``, the ELBO, and importance sampling with the guide, whose
difference to log p(x) is what it misses. At the end the inference gap is split into the part of the family
(approximation gap) and the part of the network (amortization gap) (Cremer et al. 2018).

    python benchmarks/posterior_families.py   # about 25 minutes on one core

The table, the numbers in it and the picture go to --results after each family.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from frameworks.process import machine, warn_if_busy
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae import VAE, data, evidence, fit, likelihoods, nn, posteriors, priors
from pyro_vae.scripts import count, exit_at_interrupt
from pyro_vae.training import Run, ema

IMAGE, LATENT, HIDDEN, CONTEXT, RANK = (1, 28, 28), 20, [200, 200], 32, 4
NAME = "posterior_families"


def network(outputs: int) -> torch.nn.Module:
    return nn.mlp(IMAGE, HIDDEN, outputs)


FAMILIES: dict[str, Callable[[], torch.nn.Module]] = {
    "Normal": lambda: posteriors.Normal(network(2 * LATENT)),
    "LowRankNormal": lambda: posteriors.LowRankNormal(network((2 + RANK) * LATENT), RANK),
    "FullNormal": lambda: posteriors.FullNormal(network(LATENT + LATENT * (LATENT + 1) // 2)),
    "InverseAutoregressive": lambda: posteriors.InverseAutoregressive(network(2 * LATENT + CONTEXT), LATENT, CONTEXT),
    "NeuralSpline": lambda: posteriors.NeuralSpline(network(2 * LATENT + CONTEXT), LATENT, CONTEXT),
}


class Snapshots:
    """Copies of a VAE at some times of its training, in seconds of CPU time: a callback for ``fit``.

    A copy is made at the end of the epoch in which its time comes; ``at`` has when that was. After the last the run
    ends.
    """

    def __init__(self, seconds: Sequence[float]) -> None:
        self.left, self.vaes, self.at, self.epochs = sorted(seconds), [], [], []
        self.start = time.process_time()

    def __call__(self, run: Run) -> bool:
        now = time.process_time() - self.start
        if now >= self.left[0]:
            self.left = [seconds for seconds in self.left if seconds > now]
            self.vaes.append(deepcopy(run.vae))
            self.at.append(now)
            self.epochs.append(len(run.history))
        return not self.left


def train(make: Callable[[], torch.nn.Module], images: Tensor, seconds: Sequence[float], seed: int) -> Snapshots:
    torch.manual_seed(seed)
    decoder = likelihoods.Bernoulli(nn.mlp(LATENT, HIDDEN, IMAGE))  # has the same weights for each family
    vae = VAE(priors.StandardNormal(LATENT), decoder, make())
    snapshots = Snapshots(seconds)
    fit(
        vae,
        images,
        epochs=10**6,
        batch_size=200,
        lr=2e-3,
        transform=data.binarize.dynamic,
        average=ema(0.999),
        compile="graph",  # Inductor's time is that of another compiler, in other processes
        seed=seed,
        callbacks=[snapshots],
        progress=False,
    )
    return snapshots


def measure(vae: VAE, x: Tensor, num_samples: int, seed: int) -> tuple[evidence.Evidence, dict[str, Any]]:
    """log p(x), and with it the ELBO and importance sampling with the guide, for the same images."""
    torch.manual_seed(seed)
    found = evidence.estimate(vae.model, vae.guide, x, progress=False)
    by_guide = evidence.importance(vae.model, vae.guide, x, num_samples=num_samples, progress=False)
    return found, {
        "log_prob": found.mean,
        "log_prob_error": found.mean_error,
        "elbo": by_guide.elbo.mean().item(),
        "by_guide": by_guide.mean,
        "by_guide_std_error": by_guide.mean_std_error,
    }


def gaps(vae: VAE, x: Tensor, log_prob: evidence.Evidence, seed: int) -> dict[str, Any]:
    """The means of both parts of the inference gap, over the images for which they are known."""
    torch.manual_seed(seed)
    gap = evidence.inference_gap(vae.model, vae.guide, x, log_prob=log_prob, progress=False)
    known = gap.converged & gap.settled
    return {
        "approximation": gap.approximation[known].mean().item(),
        "amortization": gap.amortization[known].mean().item(),
        "images": int(known.sum()),
    }


def row(name: str, args: argparse.Namespace, train_images: Tensor, x: Tensor) -> dict[str, Any]:
    snapshots = train(FAMILIES[name], train_images, [60 * minutes for minutes in args.minutes], args.seed)
    times = []
    for vae, at, epochs in zip(snapshots.vaes, snapshots.at, snapshots.epochs, strict=True):
        found, numbers = measure(vae, x, args.samples, args.seed)
        times.append({"minutes": at / 60, "epochs": epochs, **numbers})
        print(f"{name}: {json.dumps(times[-1])}", flush=True)
    parameters = sum(parameter.numel() for parameter in snapshots.vaes[-1].parameters())
    gap = gaps(snapshots.vaes[-1], x, found, args.seed)
    return {"parameters": parameters, "times": times, "gap": gap}


def table(content: dict[str, Any]) -> str:
    on, settings, families = content["machine"], content["settings"], content["families"]
    lines = [
        "# Families of posteriors: log p(x) against time of training",
        "",
        f"Made by `benchmarks/{NAME}.py`, on {on['cpu']}, {on['threads']} thread, torch {on['packages']['torch']}.",
        "",
        f"MNIST, binarized anew in every epoch; {LATENT} latents, hidden layers of 200 and 200. Means over the same "
        f"{settings['images']} test images, in nats. log p(x) by `evidence.estimate`, with 95% errors. The guide "
        f"misses: log p(x) minus importance sampling with {settings['samples']} samples from the guide. Minutes are "
        "CPU time; a number is from the end of the epoch in which the time was over.",
        "",
        "| posterior | minutes | epochs | log p(x) | ELBO | inference gap | the guide misses |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in families.items():
        for at in found["times"]:
            log_prob, elbo, by_guide = at["log_prob"], at["elbo"], at["by_guide"]
            cells = name, f"{at['minutes']:.1f}", str(at["epochs"]), f"{log_prob:.2f} +- {at['log_prob_error']:.2f}"
            more = f"{elbo:.2f}", f"{log_prob - elbo:.2f}", f"{log_prob - by_guide:.2f}"
            lines.append(f"| {' | '.join([*cells, *more])} |")
    lines += [
        "",
        "At the end of training, for the images for which both parts of the gap are known:",
        "",
        "| posterior | parameters | approximation gap (the family) | amortization gap (its network) | images |",
        "|---|---|---|---|---|",
    ]
    for name, found in families.items():
        gap = found["gap"]
        parts = f"{gap['approximation']:.2f} | {gap['amortization']:.2f} | {gap['images']}"
        lines.append(f"| {name} | {found['parameters']:,} | {parts} |")
    return "\n".join(lines) + "\n"


def picture(content: dict[str, Any]) -> Figure:
    """log p(x) and the ELBO against minutes; and both parts of the gap at the end."""
    families = content["families"]
    figure = Figure(figsize=(11, 4.4), layout="constrained", dpi=150)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for i, (name, found) in enumerate(families.items()):
        minutes = [at["minutes"] for at in found["times"]]
        log_prob, error = ([at[key] for at in found["times"]] for key in ("log_prob", "log_prob_error"))
        left.errorbar(minutes, log_prob, error, color=f"C{i}", marker="o", capsize=3, label=name)
        left.plot(minutes, [at["elbo"] for at in found["times"]], color=f"C{i}", linestyle=":")
    left.set(xscale="log", xlabel="minutes of training (CPU time)", ylabel="nats per test image")
    ticks = content["settings"]["minutes"]
    left.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
    left.minorticks_off()
    left.set_title("log p(x) (solid, with 95% errors) and ELBO (dotted)", fontsize="medium")
    left.grid(alpha=0.2)
    left.legend()
    approximation, amortization = (
        [found["gap"][part] for found in families.values()] for part in ("approximation", "amortization")
    )
    right.barh(list(families), approximation, label="approximation gap (the family)")
    right.barh(list(families), amortization, left=approximation, label="amortization gap (its network)")
    right.set(xlabel="nats")
    right.set_title("log p(x) - ELBO at the end", fontsize="medium")
    right.invert_yaxis()
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def save(content: dict[str, Any], folder: Path) -> None:
    (folder / f"{NAME}.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / f"{NAME}.md").write_text(table(content))
    picture(content).savefig(folder / f"{NAME}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="some of the families")
    parser.add_argument("--minutes", nargs="+", type=float, default=[0.5, 1, 2], help="CPU time of training")
    parser.add_argument("--images", type=count(), default=100, help="number of test images, evenly spaced")
    parser.add_argument("--samples", type=count(), default=5000, help="from the guide, for importance sampling")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="table and picture")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warn_if_busy()
    mnist = data.load("mnist", num_valid=0)
    x = data.binarize.fixed(mnist.test)[:: max(1, len(mnist.test) // args.images)][: args.images]
    settings = {"minutes": args.minutes, "images": len(x), "samples": args.samples, "seed": args.seed}
    content: dict[str, Any] = {"machine": machine(1), "settings": settings, "families": {}}
    for name in args.only:
        content["families"][name] = row(name, args, mnist.train, x)
        save(content, args.results)
    print(f"wrote {NAME}.md, .json and .png to {args.results}")


if __name__ == "__main__":
    exit_at_interrupt(main)
