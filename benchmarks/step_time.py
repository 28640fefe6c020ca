"""How long a training step takes in each framework, with the same networks, optimizer, data and batches.

Every contestant has a process of its own; they take turns, in rounds, so that what else the machine does falls on all.
In a round each makes as many steps as take about a second. What it needs but once (imports, compiling) comes before,
and has columns of its own. Contestants that cannot take part are listed with the reason.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from frameworks import CONTESTANTS, Work, reason_to_leave_out, start
from frameworks.process import Process, machine, private_answers, warn_if_busy

# Of each, the first that takes part.
BASELINES = ["Pyro, TraceMeanField_ELBO", "Pyro, Trace_ELBO"], ["by hand"], ["NumPyro"]


def work(name: str, settings: str, images: str) -> None:
    """Answers to "steps": the seconds that so many took, and the mean of their losses in nats per image."""
    with private_answers() as answers:
        training = start(name, Work(**json.loads(settings)), np.load(images))
        print("null", file=answers)
        for line in sys.stdin:
            steps = int(line)
            begin = time.perf_counter()
            loss = training.run(steps)
            print(json.dumps([time.perf_counter() - begin, loss]), file=answers)


class Worker:
    """A contestant that is ready: it has compiled what it compiles, and how many steps take a second is known."""

    def __init__(self, name: str, task: Work, images: Path, args: argparse.Namespace) -> None:
        begin = time.perf_counter()
        command = [__file__, "--worker", name, json.dumps(asdict(task)), str(images)]
        self.process = Process(command, args.threads)
        self.process.answer()
        self.start_up = time.perf_counter() - begin
        first, settling = self.run(3), self.run(10)
        per_step = min(settling, self.run(5) if settling < 5 else settling)
        self.compiling = max(0.0, 3 * (first - per_step) + 10 * (settling - per_step))
        self.steps = max(1, round(args.seconds / per_step))
        self.per_step: list[float] = []

    def run(self, steps: int) -> float:
        seconds, self.loss = self.process.ask(str(steps))
        return seconds / steps


def measure(task: Work, images: Path, names: list[str], args: argparse.Namespace) -> dict[str, dict]:
    """A row for each contestant: seconds per step in every round, or the reason why there is none."""
    workers: dict[str, Worker] = {}
    rows: dict[str, dict] = {}
    for name in names:
        reason = reason_to_leave_out(name, task.model)
        if reason is None:
            print(f"{task.model}, batches of {task.batch_size}: {name}", file=sys.stderr)
            try:
                workers[name] = Worker(name, task, images, args)
            except RuntimeError as error:
                reason = f"failed: {error}"
        if reason is not None:
            rows[name] = {"left_out": reason}
    taking_part, loads = list(workers), []
    for i in range(args.rounds):
        loads.append(os.getloadavg()[0])
        turn = i % max(1, len(taking_part))
        for name in taking_part[turn:] + taking_part[:turn]:  # nobody is always first
            workers[name].per_step.append(workers[name].run(workers[name].steps))
    for name, worker in workers.items():
        rows[name] = {
            "warnings": worker.process.stop(),
            "seconds_per_step": worker.per_step,
            "steps_in_a_round": worker.steps,
            "start_up_seconds": worker.start_up,
            "compiling_seconds": worker.compiling,
            "last_loss": None if np.isnan(worker.loss) else worker.loss,
        }
    for name in workers:
        rows[name]["ratios"] = {
            baseline: [a / b for a, b in zip(workers[name].per_step, workers[baseline].per_step, strict=True)]
            for choice in BASELINES
            for baseline in choice
            if baseline in workers
        }
    return {"rows": {name: rows[name] for name in names}, "load": loads}


def check(task: Work, images: Path, names: list[str], args: argparse.Namespace) -> None:
    """That all train the same model: prints the mean losses of the first and the second half of so many steps."""
    for name in names:
        if reason_to_leave_out(name, task.model) is None and not name.startswith("matrix products"):
            process = Process([__file__, "--worker", name, json.dumps(asdict(task)), str(images)], args.threads)
            try:
                process.answer()
                losses = [process.ask(str(args.check // 2))[1] for _ in range(2)]
                print(
                    f"{task.model:<6}{task.batch_size:<6}{name:<36}", *(f"{loss:9.3f}" for loss in losses), flush=True
                )
                process.stop()
            except RuntimeError as error:
                print(f"{task.model:<6}{task.batch_size:<6}{name:<36} failed: {error}")


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def print_table(task: Work, rows: dict[str, dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    baselines = [next((name for name in choice if "ratios" in rows.get(name, {})), None) for choice in BASELINES]
    table = Table(title=f"{task.model}, batches of {task.batch_size}: median (range) over the rounds")
    for column in ["", "ms per step", *(f"time / {name}" for name in baselines if name), "start-up, s", "compiling, s"]:
        table.add_column(column, no_wrap=column == "")
    for name, row in rows.items():
        if "left_out" in row:
            table.add_row(name, "-")
            continue
        ratios = [spread(row["ratios"][baseline], 3) for baseline in baselines if baseline]
        seconds = f"{row['start_up_seconds']:.1f}", f"{row['compiling_seconds']:.1f}"
        table.add_row(name, spread([1e3 * s for s in row["seconds_per_step"]], 3), *ratios, *seconds)
    Console(width=170).print(table)
    for name, row in rows.items():
        for remark in [row["left_out"]] if "left_out" in row else row["warnings"]:
            print(f"{name}: {remark}")


def write_images(folder: str) -> Path:
    """The 50000 training images of MNIST, grey, and drawn once from their grey levels."""
    from pyro_vae import data

    grey = data.load("mnist").train
    for name, images in {"grey": grey, "binary": data.binarize.fixed(grey)}.items():
        np.save(Path(folder) / f"{name}.npy", images.reshape(-1, 784).numpy())
    return Path(folder)


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["mlp", "conv", "flow"], default=["mlp", "conv", "flow"])
    parser.add_argument("--batch", type=int, nargs="+", default=[128], help="images in a step; several, to compare")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each contestant's turn")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(CONTESTANTS)}")
    parser.add_argument("--dynamic", action="store_true", help="binarize images anew at every step")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=cores, help="of every process")
    parser.add_argument(
        "--check", type=int, metavar="STEPS", help="no times: the losses of so many steps, side by side"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    args = parser.parse_args()
    # What "auto" does depends on how far it is.
    names = args.only or [name for name in CONTESTANTS if not name.startswith("pyro_vae, auto")]
    if unknown := set(names) - set(CONTESTANTS):
        parser.error(f"--only: no {', '.join(sorted(unknown))} among {', '.join(CONTESTANTS)}")
    warn_if_busy()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(folder) / ("grey.npy" if args.dynamic else "binary.npy")
        for model in args.models:
            for batch_size in args.batch:
                task = Work(model=model, batch_size=batch_size, dynamic=args.dynamic, device=args.device)
                if args.check:
                    check(task, images, names, args)
                    continue
                results.append({"work": asdict(task), **measure(task, images, names, args)})
                print_table(task, results[-1]["rows"])
    if args.json and not args.check:
        settings = {"rounds": args.rounds, "seconds": args.seconds}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": machine(args.threads), **settings, "results": results}, indent=2))


if __name__ == "__main__":
    main()
