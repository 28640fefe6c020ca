"""How long log p(x) by importance sampling takes, against Pyro's own function on the same work, and in how much memory.

Every contestant has a process of its own; they take turns, in rounds, so that what else the machine does falls
on all. The work is that of the literature: 10000 binarized MNIST test images, 5000 samples each, with a 50-200-200-784
Bernoulli decoder in float32. By default a few images of it; ``--full`` does all of it.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from pyro import distributions as dist
from pyro.infer.importance import vectorized_importance_weights
from torch import Tensor

from pyro_vae import VAE, data, evidence, likelihoods, nn, posteriors, priors

LATENT, HIDDEN, IMAGE = 50, [200, 200], (1, 28, 28)
BASELINE = "pyro"
OURS = "pyro_vae"
PRODUCTS = "matrix products"
Contestant = Callable[[Tensor, int], Tensor]  # images [n, 1, 28, 28] and a number of samples to log p(x), [n]


def build() -> VAE:
    """Untrained, the same in every process: what is multiplied does not change how long it takes."""
    torch.manual_seed(0)
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(nn.mlp(LATENT, HIDDEN, IMAGE)),
        posteriors.Normal(nn.mlp(IMAGE, HIDDEN, 2 * LATENT)),
    ).eval()


def tutorial_programs(vae: VAE) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
    """The same model and guide, with the same networks, written by hand as in Pyro's tutorial on VAEs."""
    encoder, decoder = vae.posterior.network, vae.likelihood.network

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], LATENT)
            z = pyro.sample("latent", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=decoder(z)).to_event(3), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", x.shape[0]):
            loc, raw_scale = encoder(x).chunk(2, dim=-1)
            pyro.sample("latent", dist.Normal(loc, torch.nn.functional.softplus(raw_scale)).to_event(1))

    return model, guide


def pyros_own(model: Callable, guide: Callable) -> Contestant:
    """Pyro's function sums over the data, so it is called for each datapoint, as its users have to."""

    @torch.no_grad()
    def run(x: Tensor, num_samples: int) -> Tensor:
        estimates = []
        for row in x:
            log_w = vectorized_importance_weights(
                model, guide, row[None], num_samples=num_samples, max_plate_nesting=1
            )[0]
            estimates.append(log_w.logsumexp(0) - math.log(num_samples))
            del log_w  # kept longer, it breaks up the memory: a long run would take 14 MB for each image
        return torch.stack(estimates)

    return run


def without_validation(contestant: Contestant) -> Contestant:
    def run(x: Tensor, num_samples: int) -> Tensor:
        with pyro.validation_enabled(False):
            return contestant(x, num_samples)

    return run


def ours(model: Callable, guide: Callable, compile: bool | str = "auto") -> Contestant:  # noqa: A002
    def run(x: Tensor, num_samples: int) -> Tensor:
        result = evidence.importance(model, guide, x, num_samples=num_samples, compile=compile, progress=iter)
        return result.log_prob

    return run


def matrix_products(vae: VAE, device: str) -> Contestant:
    """The products of the decoder alone: what no implementation in float32 can do without."""
    layers = [module for module in vae.likelihood.network if isinstance(module, torch.nn.Linear)]
    inputs = [torch.randn(4096, layer.in_features, device=device) for layer in layers]

    @torch.no_grad()
    def run(x: Tensor, num_samples: int) -> Tensor:
        for _ in range(-(-len(x) * num_samples // 4096)):
            for layer, tensor in zip(layers, inputs, strict=True):
                product = layer(tensor)
        return product.new_full((len(x),), torch.nan) + product[0, 0]  # so that its value waits for the products

    return run


def contestants(device: str = "cpu") -> dict[str, Contestant]:
    vae = build().to(device)
    tutorial = tutorial_programs(vae)
    return {
        BASELINE: pyros_own(*tutorial),
        "pyro, no validation": without_validation(pyros_own(*tutorial)),
        "pyro on our VAE": pyros_own(vae.model, vae.guide),
        "pyro_vae on the tutorial's": ours(*tutorial),
        "pyro_vae, not compiled": ours(vae.model, vae.guide, compile=False),
        "pyro_vae, compiled": ours(vae.model, vae.guide, compile=True),  # the seconds that takes are counted
        OURS: ours(vae.model, vae.guide),
        PRODUCTS: matrix_products(vae, device),
    }


def work(name: str, device: str) -> None:
    """Reads 'first last num_samples' lines; answers with seconds, the mean of log p(x) and the peak memory in MB."""
    images = data.binarize.fixed(data.load("mnist").test).to(device)
    run = contestants(device)[name]
    run(images[:2], 100)
    print("ready", flush=True)
    for line in sys.stdin:
        first, last, num_samples = map(int, line.split())
        start = time.perf_counter()
        log_prob = run(images[first:last], num_samples).double().mean().item()  # which waits for the device
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        print(json.dumps([seconds, log_prob, peak]), flush=True)


class Worker:
    """A contestant in a process of its own."""

    def __init__(self, name: str, device: str) -> None:
        command = [sys.executable, __file__, "--worker", name, "--device", device]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def run(self, first: int, last: int, num_samples: int) -> tuple[float, float, float]:
        self.process.stdin.write(f"{first} {last} {num_samples}\n")
        self.process.stdin.flush()
        return tuple(json.loads(self.process.stdout.readline()))

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def time_all(
    names: list[str], rounds: list[tuple[int, int]], num_samples: int, device: str
) -> dict[str, dict[str, float]]:
    workers = {name: Worker(name, device) for name in names}
    answers = {name: [] for name in names}
    for i, (first, last) in enumerate(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:  # nobody is always first
            answers[name].append(workers[name].run(first, last, num_samples))
        print(f"round {i + 1} of {len(rounds)}", file=sys.stderr)
    for worker in workers.values():
        worker.stop()
    seconds = {name: [answer[0] for answer in rows] for name, rows in answers.items()}
    pairs = sum(last - first for first, last in rounds) * num_samples
    table = {}
    for name in names:
        ratios = [a / b for a, b in zip(seconds[name], seconds[BASELINE], strict=True)]
        table[name] = {
            "seconds": sum(seconds[name]),
            "microseconds_per_sample": 1e6 * sum(seconds[name]) / pairs,
            "ratio_to_pyro_median": statistics.median(ratios),
            "ratio_to_pyro_min": min(ratios),
            "ratio_to_pyro_max": max(ratios),
            "log_px": statistics.fmean(answer[1] for answer in answers[name]),
        }
    return table


def peak_memory(num_samples: int, device: str) -> float:
    """Of a process that does nothing else, in MB."""
    worker = Worker(OURS, device)
    peak = worker.run(0, 500, num_samples)[2]
    worker.stop()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--images", type=int, default=500, help="in each round")
    parser.add_argument("--num-samples", type=int, default=5000)
    parser.add_argument(
        "--full", action="store_true", help="all 10000 images, in 4 rounds, for Pyro, pyro_vae and the matrix products"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/evidence.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.device)
        return
    names = [BASELINE, OURS, PRODUCTS] if args.full else [name for name in contestants() if name != OURS]
    size = 2500 if args.full else args.images
    rounds = [(i * size, (i + 1) * size) for i in range(4 if args.full else args.rounds)]
    table = time_all(names, rounds, args.num_samples, args.device)
    print(f"{'':<28}{'seconds':>9}{'us/sample':>11}{'ratio to Pyro, median (range)':>32}{'log p(x)':>11}")
    for name, row in table.items():
        spread = f"{row['ratio_to_pyro_median']:.2f} ({row['ratio_to_pyro_min']:.2f} to {row['ratio_to_pyro_max']:.2f})"
        print(
            f"{name:<28}{row['seconds']:>9.1f}{row['microseconds_per_sample']:>11.2f}{spread:>32}{row['log_px']:>11.2f}"
        )
    memory = {count: peak_memory(count, args.device) for count in (500, 5000)}
    print("peak memory:", ", ".join(f"{peak:.0f} MB with {count} samples" for count, peak in memory.items()))
    result = {
        "images": rounds[-1][1],
        "num_samples": args.num_samples,
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "table": table,
        "peak_memory_mb": memory,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
