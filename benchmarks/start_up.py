"""The time of commands that compute nothing, and of the imports of a first program.

Each runs in a new process. With folders of several versions of the package, the versions take turns:

    python benchmarks/start_up.py RUN [FOLDER ...] [--rounds 10]

RUN is the folder of a run. FOLDER contains ``pyro_vae``; by default it is this repository. The table has medians in
seconds, and in parentheses those of the processor time, which depends less on other programs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
COMMANDS = {
    "--help": ["--help"],
    "--version": ["--version"],
    "train --help": ["train", "--help"],
    "evaluate --help": ["evaluate", "--help"],
    "info RUN": ["info"],
    "unknown command": ["polish"],
    "unknown option": ["train", "OUT", "--epoch", "3"],
    "missing RUN": ["evaluate", "MISSING"],
    "misspelt data": ["train", "OUT", "--data", "mnits"],
}
PROGRAMS = {
    "import torch": "import torch",
    "import torch, pyro.infer": "import torch, pyro.infer",
    "import pyro_vae": "import pyro_vae",
    "VAE, SVI and parts": "from pyro_vae import SVI, VAE, likelihoods, nn, posteriors, priors",
    "all names": "from pyro_vae import *",
}


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """The time of a process by the clock, and by the processor."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    before, start = os.times(), time.perf_counter()
    with tempfile.TemporaryDirectory() as empty:  # Python looks for modules in the working directory first
        subprocess.run(command, env=environment, cwd=empty, capture_output=True, check=False)
    end, after = time.perf_counter(), os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return end - start, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folders", type=Path, nargs="*", default=[HERE])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    rows = {name: ["-m", "pyro_vae", *words] for name, words in COMMANDS.items()}
    rows["info RUN"].append(str(options.run.resolve()))
    rows |= {name: ["-c", program] for name, program in PROGRAMS.items()}
    print(f"{'':<26}" + "".join(f"{folder.resolve().name:>20}" for folder in options.folders))
    for name, words in rows.items():
        times: dict[Path, list[tuple[float, float]]] = {folder: [] for folder in options.folders}
        for _ in range(options.rounds):
            for folder in options.folders:
                times[folder].append(seconds([sys.executable, *words], folder.resolve()))
        medians = ([statistics.median(each) for each in zip(*some, strict=True)] for some in times.values())
        print(f"{name:<26}" + "".join(f"{wall:>12.2f} ({used:.2f})" for wall, used in medians), flush=True)


if __name__ == "__main__":
    main()
