"""How much faster ``fit`` is in two processes of one thread than in one, in turns; what the messages between them cost.

Each process trains the same 784-400-50-400-784 VAE on its share of each batch (gloo, on the CPU).
The last epochs count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from frameworks.process import machine
from rich.console import Console
from rich.table import Table

from pyro_vae import VAE, fit, likelihoods, nn, posteriors, priors
from pyro_vae.processes import join


def train(batch_size: int) -> None:
    """Prints images per second, in the first process."""
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(50),
        likelihoods.Bernoulli(nn.mlp(50, [400], 784)),
        posteriors.Normal(nn.mlp(784, [400], 100)),
    )
    x = (torch.rand(50 * batch_size, 784) < 0.13).float()
    run = fit(vae, x, epochs=8, batch_size=batch_size, compile="graph", progress=False)
    if join("cpu").is_first:
        print(statistics.median(row["datapoints_per_second"] for row in run.history[2:]))


def measure(processes: int, batch_size: int) -> float:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launcher, __file__, "--train", str(batch_size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(result.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512, 2048], help="images in a step, in all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    args = parser.parse_args()
    if args.train:
        train(args.train)
        return
    table, rows = Table("batch", "images/s, one process", "two", "ratio"), []
    for batch in args.batch:
        speeds = [(measure(1, batch), measure(2, batch)) for _ in range(args.rounds)]
        one, two = (statistics.median(each) for each in zip(*speeds, strict=True))
        ratio = statistics.median(b / a for a, b in speeds)
        rows.append({"batch": batch, "one": one, "two": two, "ratio": ratio})
        table.add_row(str(batch), f"{one:,.0f}", f"{two:,.0f}", f"{ratio:.2f}")
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(1), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
