"""Seconds from the start of a process until a variational autoencoder is good: log p(x) >= -97.10 nats per test image.

On the literature's fixed binarized MNIST. The clock starts when the process does and stops when the trained weights are
in a file, so imports, reading the data, compiling and all training count. The processes run one after the other. How
good the weights are is found out afterwards, the same way for all: log p(x) of test images, by evidence.estimate. For
each contestant the smallest number of epochs in a grid that reaches the target is searched with one seed (by bisection,
as if more epochs were never worse), then timed with others; if most of those miss the target, with the next number of
epochs.

Two recipes: "same" trains all as examples/mnist_svi.py does, with its networks, first weights and learning rates;
"own" trains each as its own published example does (of pythae, its defaults), but on the same data.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from frameworks import CONTESTANTS, Work, reason_to_leave_out, start
from frameworks.process import Process, machine, private_answers, warn_if_busy

SAME = Work(hidden=400, latent=50, batch_size=128, lr=4e-3, decay=True)
OURS = ["pyro_vae, graph", "pyro_vae, auto", "pyro_vae, graph, bfloat16", "pyro_vae, auto, bfloat16"]
EXAMPLE = Work(hidden=400, activation="softplus", scale="exp", sampled_kl=True)
RECIPES = {
    "same": dict.fromkeys(["Pyro, TraceMeanField_ELBO", "by hand", "NumPyro", "pythae", *OURS], SAME),
    "own": {
        "Pyro, Trace_ELBO": replace(EXAMPLE, initial="torch", batch_size=256),  # Pyro's examples/vae
        "by hand": Work(latent=20, activation="relu", scale="exp", initial="torch"),  # PyTorch's examples/vae
        "NumPyro": replace(EXAMPLE, initial="stax"),  # NumPyro's examples/vae.py
        "pythae": Work(hidden=512, latent=10, activation="relu", scale="exp", initial="torch", batch_size=64, lr=1e-4),
        **dict.fromkeys(OURS, SAME),
    },
}


def work(name: str, settings: str, bits: str, out: str) -> None:
    """Trains, writes the weights, and answers with the seconds that it took from here to ready, and to train."""
    with private_answers() as answers:
        begin = time.perf_counter()
        images = np.unpackbits(np.load(bits), axis=1).astype(np.float32)
        training = start(name, Work(**json.loads(settings)), images)
        ready = time.perf_counter()
        training.train()
        weights = training.weights()
        trained = time.perf_counter()
        np.savez(out, *weights)
        print(json.dumps([ready - begin, trained - ready]), file=answers)


def train(name: str, task: Work, bits: Path, threads: int) -> dict:
    """The seconds, and the weights as a list of arrays."""
    out = bits.with_name("weights.npz")
    begin = time.perf_counter()
    process = Process([__file__, "--worker", name, json.dumps(asdict(task)), str(bits), str(out)], threads)
    ready, training = process.answer()
    seconds = time.perf_counter() - begin
    process.stop()
    with np.load(out) as arrays:
        weights = list(arrays.values())
    out.unlink()
    return {"seconds": seconds, "ready_seconds": ready, "training_seconds": training, "weights": weights}


def log_px(task: Work, weights: list[np.ndarray], test: np.ndarray) -> tuple[float, float]:
    """The mean over the test images, in nats, and its 95% error, bias included."""
    import torch
    from frameworks import torch_networks
    from pyro import distributions as dist

    from pyro_vae import VAE, evidence, likelihoods, priors

    class Posterior(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> dist.TorchDistribution:
            loc, raw_scale = self.network(x).chunk(2, dim=-1)
            return dist.Normal(loc, torch_networks.positive(task, raw_scale)).to_event(1)

    encoder, decoder = torch_networks.networks(task)
    vae = VAE(priors.StandardNormal(task.latent), likelihoods.Bernoulli(decoder), Posterior(encoder)).eval()
    for parameter, array in zip([*encoder.parameters(), *decoder.parameters()], weights, strict=True):
        parameter.data.copy_(torch.tensor(array))
    torch.manual_seed(0)
    images = torch.from_numpy(test)
    result = evidence.estimate(vae.model, vae.guide, images, progress=iter)
    return result.settled_mean, result.settled_mean_error


def run(name: str, task: Work, bits: Path, test: np.ndarray, args: argparse.Namespace) -> dict:
    result = train(name, task, bits, args.threads)
    value, error = log_px(task, result.pop("weights"), test)
    print(f"{name}: {task.epochs} epochs, {result['seconds']:.1f} s, log p(x) {value:.2f}", file=sys.stderr)
    return {**result, "epochs": task.epochs, "log_px": value, "log_px_error": error}


def search(name: str, task: Work, bits: Path, test: np.ndarray, args: argparse.Namespace) -> list[dict]:
    """All that was tried."""
    tried: list[dict] = []

    def reached(epochs: int) -> bool:
        tried.append(run(name, replace(task, epochs=epochs), bits, test, args))
        return tried[-1]["log_px"] >= args.target

    bisect_left(args.epochs, True, key=reached)
    return tried


def measure(recipe: str, bits: Path, test: np.ndarray, args: argparse.Namespace) -> dict[str, dict]:
    rows: dict[str, dict] = {}
    chosen: dict[str, Work] = {}
    for name, task in RECIPES[recipe].items():
        if args.only and name not in args.only:
            continue
        rows[name] = {"work": asdict(task), "tried": [], "runs": []}
        try:
            if reason := reason_to_leave_out(name, task.model):
                raise RuntimeError(reason)
            rows[name]["tried"] = search(name, task, bits, test, args)
        except RuntimeError as error:
            rows[name]["left_out"] = str(error)
            continue
        enough = [result["epochs"] for result in rows[name]["tried"] if result["log_px"] >= args.target]
        if enough:
            chosen[name] = replace(task, epochs=min(enough))
    while chosen:
        for name in chosen:
            rows[name]["tried"] += rows[name]["runs"]
            rows[name]["runs"] = []
        for seed in range(1, args.rounds + 1):
            for name, task in chosen.items():
                rows[name]["runs"].append(run(name, replace(task, seed=seed), bits, test, args))
        chosen = {name: more for name in chosen if (more := next_try(rows[name]["runs"], chosen[name], args))}
    return rows


def next_try(runs: list[dict], task: Work, args: argparse.Namespace) -> Work | None:
    """More epochs, if there are any, where the seed of the search had luck."""
    more = [epochs for epochs in args.epochs if epochs > task.epochs]
    if not more or statistics.median(result["log_px"] for result in runs) >= args.target:
        return None
    return replace(task, epochs=more[0])


def print_table(recipe: str, rows: dict[str, dict], target: float) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{recipe} recipe: seconds to log p(x) >= {target:.2f} nats, median (range) over the rounds"
    table = Table("", "seconds", "of which training", "epochs", "log p(x)", "reached", title=title)
    for name, row in rows.items():
        if runs := row["runs"]:
            reached = sum(result["log_px"] >= target for result in runs)
            columns = [spread(runs, "seconds", 1), spread(runs, "training_seconds", 1), str(runs[0]["epochs"])]
            table.add_row(name, *columns, spread(runs, "log_px", 2), f"{reached} of {len(runs)}")
        elif row["tried"]:
            best = max(row["tried"], key=lambda result: result["log_px"])
            table.add_row(name, "not reached", "", f"best: {best['epochs']}", f"{best['log_px']:.2f}", "")
        else:
            table.add_row(name, row["left_out"])
    Console(width=140).print(table)


def spread(runs: list[dict], key: str, digits: int) -> str:
    values = [result[key] for result in runs]
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    root = os.environ.get("PYRO_VAE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each, with seeds of their own; default 3")
    parser.add_argument("--target", type=float, default=-97.10, help="nats per test image; default -97.10")
    grid = [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30, 40]
    parser.add_argument("--epochs", type=int, nargs="+", default=grid, help="the grid to search")
    parser.add_argument("--test-images", type=int, default=1000, help="to judge by; default 1000")
    parser.add_argument("--data", type=Path, default=root, help="folder of binarized_mnist; default $PYRO_VAE_DATA")
    parser.add_argument("--threads", type=int, default=cores, help="of every process; default all cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    args = parser.parse_args()
    args.epochs.sort()

    from pyro_vae import data

    try:
        splits = data.load("binarized_mnist", args.data)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    test = splits.test[: args.test_images].reshape(-1, 784).numpy()
    warn_if_busy()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        bits = Path(folder) / "train.npy"
        np.save(bits, np.packbits(splits.train.reshape(-1, 784).numpy().astype(np.uint8), axis=1))
        for recipe in args.recipes:
            results[recipe] = measure(recipe, bits, test, args)
            print_table(recipe, results[recipe], args.target)
    if args.json:
        settings = {key: getattr(args, key) for key in ("target", "rounds", "epochs", "test_images")}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": machine(args.threads), **settings, "results": results}, indent=2))


if __name__ == "__main__":
    main()
