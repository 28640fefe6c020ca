"""How the cost of a training step grows: with the batch, the latent size, the particles, and the size of the data.

One thing is changed at a time, from a 784-400-50-400-784 VAE on batches of 128. All settings of it take turns, in
rounds, in one process. For each it says the time of a step, and that of one image (times particles) in it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from frameworks.process import machine
from pyro.infer import Trace_ELBO
from rich.console import Console
from rich.table import Table

from pyro_vae import SVI, VAE, likelihoods, nn, posteriors, priors

START = {"batch": 128, "latent": 50, "particles": 1, "images": 50_000}
AXES = {
    "batch": [32, 128, 512, 2048, 4096],
    "latent": [2, 10, 50, 200, 800],
    "particles": [1, 4, 16, 64],
    "images": [1_000, 10_000, 100_000, 400_000],
}


def steps(device: str, compile: bool | str, *, batch: int, latent: int, particles: int, images: int) -> Callable:  # noqa: A002
    """Returns a function that takes so many steps, and the mean loss of them."""
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(latent),
        likelihoods.Bernoulli(nn.mlp(latent, [400], 784)),
        posteriors.Normal(nn.mlp(784, [400], 2 * latent)),
    ).to(device)
    x = torch.rand(images, 784, device=device).lt_(0.13)
    elbo = Trace_ELBO(num_particles=particles, vectorize_particles=particles > 1)
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
    svi = SVI(vae.model, vae.guide, optimizer, elbo, compile=compile)

    def take(number: int) -> float:
        index = torch.randint(images, (number, batch), device=device)
        losses = [svi.update(x[each]) for each in index]
        return torch.stack(losses).mean().item()

    return take


def measure(axis: str, args: argparse.Namespace) -> list[dict]:
    """Rows of one axis; its settings take turns."""
    takes = [steps(args.device, args.compile, **{**START, axis: value}) for value in AXES[axis]]
    numbers = []
    for take in takes:
        take(5)  # records and compiles
        start = time.perf_counter()
        take(5)
        numbers.append(max(5, round(args.seconds / (time.perf_counter() - start) * 5)))
    seconds: list[list[float]] = [[] for _ in takes]
    for _ in range(args.rounds):
        for take, number, times in zip(takes, numbers, seconds, strict=True):
            start = time.perf_counter()
            take(number)
            times.append((time.perf_counter() - start) / number)
    rows = []
    for value, times in zip(AXES[axis], seconds, strict=True):
        setting = {**START, axis: value}
        per_image = statistics.median(times) / setting["batch"] / setting["particles"]
        rows.append({**setting, "axis": axis, "seconds_per_step": times, "microseconds_per_image": 1e6 * per_image})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each setting's turn")
    parser.add_argument("--compile", choices=["graph", "inductor"], default="graph", help="as recorded, or compiled")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    args = parser.parse_args()
    args.compile = True if args.compile == "inductor" else args.compile
    rows = []
    for axis in args.axes:
        table = Table(axis, "ms per step (range)", "us per image and particle", title=f"what changes: {axis}")
        for row in measure(axis, args):
            rows.append(row)
            times = [1e3 * each for each in row["seconds_per_step"]]
            spread = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
            table.add_row(f"{row[axis]:,}", spread, f"{row['microseconds_per_image']:.1f}")
        Console().print(table)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": machine(torch.get_num_threads()), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
