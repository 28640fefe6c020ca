"""An epoch over a ``DataLoader`` of tensors in memory: Pyro's own loop, ``SVI.epoch`` and ``fit``, in turns.

The same VAE (784-400-50-400-784), data, optimizer and loader for all. The first epochs record and compile, and do not
count.
Pyro's validation is off, which favours Pyro. A ratio is computed within a round.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyro
import torch
from fit_overhead import new_vae
from frameworks.process import machine, warn_if_busy
from pyro.infer import TraceMeanField_ELBO
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, TensorDataset

from pyro_vae import SVI, fit


def pyro_loop(loader: Iterable[list[torch.Tensor]]) -> Callable[[], None]:
    """An epoch as Pyro's tutorial writes it."""
    vae = new_vae()
    svi = pyro.infer.SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), TraceMeanField_ELBO())

    def epoch() -> None:
        with pyro.validation_enabled(False):
            for x, _ in loader:
                svi.step(x)

    return epoch


def svi_epoch(loader: Iterable[list[torch.Tensor]], mode: bool | str) -> Callable[[], None]:
    vae = new_vae()
    optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3)
    svi = SVI(vae.model, vae.guide, optimizer, TraceMeanField_ELBO(), compile=mode)
    return lambda: svi.epoch(loader)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128, 512], help="images in a step")
    parser.add_argument("--images", type=int, default=12_800, help="images in an epoch")
    parser.add_argument("--rounds", type=int, default=8, help="epochs of each that count")
    parser.add_argument("--workers", type=int, default=0, help="of the DataLoader")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    args = parser.parse_args()
    warn_if_busy()
    x, labels = (torch.rand(args.images, 784) < 0.13).float(), torch.arange(args.images) % 10
    rows = []
    for batch in args.batch:
        loader = DataLoader(
            TensorDataset(x, labels), batch, shuffle=True, num_workers=args.workers, persistent_workers=args.workers > 0
        )
        others = {
            "Pyro's loop": pyro_loop(loader),
            "`SVI.epoch`, recorded": svi_epoch(loader, "graph"),
            "`SVI.epoch`, compiled": svi_epoch(loader, True),
        }
        seconds: dict[str, list[float]] = {name: [] for name in (*others, "`fit`, compiled")}
        start = 0.0

        def take_turns(_: object) -> None:
            nonlocal start
            seconds["`fit`, compiled"].append(time.perf_counter() - start)  # noqa: B023
            for name, epoch in others.items():  # noqa: B023
                begin = time.perf_counter()
                epoch()
                seconds[name].append(time.perf_counter() - begin)  # noqa: B023
            start = time.perf_counter()

        fit(new_vae(), loader, epochs=args.rounds + 2, compile=True, callbacks=[take_turns], progress=False)
        counted = {name: times[2:] for name, times in seconds.items()}
        for name, times in counted.items():
            ratios = [a / b for a, b in zip(times, counted["Pyro's loop"], strict=True)]
            rows.append(
                {
                    "what": name,
                    "batch": batch,
                    "ms": 1e3 * statistics.median(times) / len(loader),
                    "to_pyro": statistics.median(ratios),
                    "range": [min(ratios), max(ratios)],
                }
            )
    table = Table("what", "batch", "ms per step", "/ Pyro's loop")
    for row in rows:
        low, high = row["range"]
        table.add_row(
            row["what"], str(row["batch"]), f"{row['ms']:.2f}", f"{row['to_pyro']:.2f} ({low:.2f} to {high:.2f})"
        )
    Console().print(table)
    if args.json:
        result = {"machine": machine(torch.get_num_threads()), "settings": vars(args), "rows": rows}
        args.json.write_text(json.dumps(result, indent=2, default=str))


if __name__ == "__main__":
    main()
