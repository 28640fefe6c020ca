"""Rows of the literature's tables of log p(x), trained and evaluated with this library.

    python benchmarks/reproduce ROW --data FOLDER   # with the files of other data than MNIST

trains the VAE of a row (``rows.py`` has the recipes), and estimates log p(x) of all test images by the protocol of the
paper, which is importance sampling with the guide, and by ``evidence.estimate``. The numbers are in ``results.json`` in
the folder of the run. If the command is stopped, the same command resumes it; what is finished is not repeated.

The protocol's number is a lower bound on average, and so is the paper's. The two can be compared with each other; how
far such a number is below log p(x) is what ``estimate`` says.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from frameworks.process import machine

from pyro_vae import data, evidence, load
from pyro_vae.scripts import count, exit_at_interrupt
from pyro_vae.training import Run
from reproduce.papers import PAPERS, Paper
from reproduce.rows import RECIPES, SEED
from reproduce.sharing import share

PARTS = "train", "protocol", "estimate", "activity"
ACTIVITY_IMAGES = 2000
RESULTS, PROTOCOL, ESTIMATE = "results.json", "protocol.keep", "estimate_{images}.keep"


class CpuTime:
    """Counts the seconds of CPU time of a run in all its sessions, in a file of its folder: a callback for ``fit``.

    On a machine with other work, they say more than the seconds by the clock.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "cpu_seconds.json"
        self.before = self.seconds - time.process_time()

    @property
    def seconds(self) -> float:
        return json.loads(self.path.read_text()) if self.path.exists() else 0.0

    def __call__(self, run: Run) -> None:  # noqa: ARG002
        self.path.write_text(json.dumps(self.before + time.process_time()))


def test_images(paper: Paper, folder: Path | None) -> Tensor:
    if paper.test == "fixed":
        return data.load("binarized_mnist", root=folder).test
    return data.binarize.fixed(data.load(paper.data, root=folder).test)


def timed(compute: Callable[[], Any], keep: Path) -> tuple[Any, dict[str, float]]:
    """The result, and the seconds that it took; without them if a part of it was in the file."""
    is_new = not keep.exists()
    start, cpu_start = time.perf_counter(), time.process_time()
    result = compute()
    times = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
    return result, times if is_new else {}


def train(recipe: Callable[..., Run], folder: Path | None, out: Path) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    cpu_time = CpuTime(out)
    run = recipe(folder, out, callbacks=[cpu_time])
    last = run.history[(run.best_epoch or 0) - 1]
    return {
        "epochs": len(run.history),
        "best_epoch": run.best_epoch,
        "train_loss": last["train_loss"],
        "valid_loss": last.get("valid_loss"),
        "seconds": run.seconds,
        "cpu_seconds": cpu_time.seconds,
        "settings": run.settings,
        "seed": SEED,
        "parameters": sum(parameter.numel() for parameter in run.vae.parameters()),
    }


def by_protocol(paper: Paper, x: Tensor, out: Path) -> evidence.Evidence:
    """log p(x) as the paper estimates it; kept in a file."""
    vae = load(out)
    torch.manual_seed(SEED)
    return evidence.importance(vae.model, vae.guide, x, num_samples=paper.num_samples, keep=out / PROTOCOL)


def protocol(paper: Paper, folder: Path | None, out: Path) -> dict[str, Any]:
    x = test_images(paper, folder)
    result, times = timed(lambda: by_protocol(paper, x, out), out / PROTOCOL)
    return {
        "images": len(x),
        "num_samples": paper.num_samples,
        "log_prob": result.mean,
        "std_error": result.mean_std_error,  # of the estimate
        "population_std_error": result.population_std_error,  # of the finite test set
        "elbo": result.elbo.mean().item(),
        **times,
    }


def estimate(paper: Paper, folder: Path | None, out: Path, images: int, certify: int) -> dict[str, Any]:
    """log p(x) of evenly spaced test images, and how far it is above the protocol's number for them."""
    x = test_images(paper, folder)
    known = by_protocol(paper, x, out)
    chosen = torch.arange(len(x))[:: max(1, len(x) // images)]
    vae, keep = load(out), out / ESTIMATE.format(images=len(chosen))
    torch.manual_seed(SEED)
    result, times = timed(lambda: evidence.estimate(vae.model, vae.guide, x[chosen], certify=certify, keep=keep), keep)
    numbers: dict[str, Any] = {
        "log_prob": result.mean,
        "error": result.mean_error,  # 95%, bias included
        "settled": result.settled.double().mean().item(),
        "log_prob_settled": result.settled_mean,
        "error_settled": result.settled_mean_error,
    }
    difference = result.log_prob - known.log_prob[chosen]
    left_out = 1 - len(chosen) / len(x)  # their differences are not known
    numbers |= {
        "above_protocol": difference.mean().item(),
        "above_protocol_error": result.mean_error + 1.96 * difference.std().item() * math.sqrt(left_out / len(chosen)),
    }
    if result.certificate is not None:
        numbers |= {
            "certificate_gap": result.certificate.gap,
            "certificate_gap_std_error": result.certificate.gap_std_error,
        }
    methods = {method.name: {"images": method.datapoints, "settled": method.settled} for method in result.methods}
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}  # JSON has no infinity
    return {"images": len(chosen), "certify": certify, **finite, "methods": methods, **times}


def activity(paper: Paper, folder: Path | None, out: Path) -> dict[str, Any]:
    """The number of active units of each layer (Burda et al. 2015, section 5.2), the lowest layer first."""
    x = test_images(paper, folder)
    vae, chosen = load(out), x[:: max(1, len(x) // ACTIVITY_IMAGES)]
    torch.manual_seed(SEED)
    result = evidence.decompose_elbo(vae.model, vae.guide, chosen)
    layers = {name: {"active": int(units.sum()), "units": units.numel()} for name, units in result.active.items()}
    return {"images": len(chosen), "rate": result.rate, "layers": dict(sorted(layers.items()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=RECIPES, metavar="ROW", help=f"one of {', '.join(RECIPES)}")
    parser.add_argument("--data", type=Path, help="folder with the files of other data than MNIST")
    parser.add_argument("--runs", type=Path, default=Path("runs/reproduce"), help="folder for the folders of runs")
    parser.add_argument("--json", type=Path, help="file for a copy of the results")
    parser.add_argument("--share", type=Path, metavar="FOLDER", help="folder for a copy of the model, with a card")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to do (default: everything)")
    parser.add_argument("--images", type=count(), default=10_000, help="number of test images for estimate")
    parser.add_argument("--certify", type=count(0), default=100, help="number of drawn images for its certificate")
    args = parser.parse_args()
    paper, out = PAPERS[args.row], args.runs / args.row
    if (paper.test == "fixed" or paper.data != "mnist") and args.data is None:
        parser.error(f"the row {args.row} needs --data FOLDER")
    path = out / RESULTS
    found = json.loads(path.read_text()) if path.exists() else {"row": args.row, "paper": paper._asdict()}
    if "estimate" in found and found["estimate"]["certify"] != args.certify:
        del found["estimate"]
    compute = {
        "train": lambda: train(RECIPES[args.row], args.data, out),
        "protocol": lambda: protocol(paper, args.data, out),
        "estimate": lambda: estimate(paper, args.data, out, args.images, args.certify),
        "activity": lambda: activity(paper, args.data, out),
    }
    for part in PARTS:
        if part in args.parts and part not in found:
            found = {**found, part: {**compute[part](), "machine": machine(torch.get_num_threads())}}
            path.write_text(json.dumps(found, indent=2) + "\n")
        if part in args.parts:
            numbers = {name: value for name, value in found[part].items() if not isinstance(value, dict)}
            print(f"{args.row}, {part}: {json.dumps(numbers)}", flush=True)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(path.read_text())
    if args.share is not None:
        share(found, out, args.share)


if __name__ == "__main__":
    exit_at_interrupt(main)
