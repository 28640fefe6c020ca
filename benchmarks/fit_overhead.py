"""What ``fit`` costs besides the steps of SVI: epochs of it, of ``SVI.epoch`` and of a loop of ``SVI.step``, in turns.

The same VAE (784-400-50-400-784), data, optimizer and kind of recorded step for all, each with parameters of its own,
in one process: after each epoch of ``fit``, a callback times one of each of the others. What ``fit`` does at every step
and at the end of an epoch counts (looking for NaN, noting), and with a folder what is written there. With --workers,
a ``DataLoader`` is measured as well, and with --stream a stream of files.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyro
import torch
from frameworks.process import machine, warn_if_busy
from pyro.infer import TraceMeanField_ELBO
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, get_worker_info

from pyro_vae import SVI, VAE, data, fit, likelihoods, nn, posteriors, priors


def new_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(
        priors.StandardNormal(50),
        likelihoods.Bernoulli(nn.mlp(50, [400], 784)),
        posteriors.Normal(nn.mlp(784, [400], 100)),
    )


class Files(IterableDataset):
    """Rows of .npy files, read as they are needed, each worker its own files."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __iter__(self) -> Iterator[Tensor]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for path in self.paths[first::step]:
            yield from torch.from_numpy(np.load(path, mmap_mode="r").astype(np.float32))


class Others:
    """The other ways to take the same steps, each an epoch, timed."""

    def __init__(self, x: Tensor, batch_size: int, mode: bool | str) -> None:
        self.seconds: dict[str, list[float]] = {"fit": [], "SVI.epoch": [], "SVI.step": []}
        self.batches = data.Batches(x, batch_size)
        self.svis = []
        for _ in range(2):
            vae = new_vae()
            optimizer = torch.optim.Adam(vae.parameters(), lr=1e-3, fused=True)
            self.svis.append(SVI(vae.model, vae.guide, optimizer, TraceMeanField_ELBO(), compile=mode))
        self.run()
        self.start = time.perf_counter()

    def __call__(self, _: object) -> None:
        """As a callback of fit: its epoch has just ended."""
        self.seconds["fit"].append(time.perf_counter() - self.start)
        self.run()
        self.start = time.perf_counter()

    def run(self) -> None:
        begin = time.perf_counter()
        self.svis[0].epoch(self.batches)
        middle = time.perf_counter()
        with pyro.validation_enabled(False):
            for batch in self.batches:
                self.svis[1].step(batch)
        self.seconds["SVI.epoch"].append(middle - begin)
        self.seconds["SVI.step"].append(time.perf_counter() - middle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[128], help="images in a step")
    parser.add_argument("--images", type=int, default=25_600, help="images in an epoch")
    parser.add_argument("--rounds", type=int, default=15, help="epochs of each")
    parser.add_argument("--compile", choices=["graph", "inductor"], default="inductor")
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="also a DataLoader with so many workers")
    parser.add_argument("--stream", type=int, nargs="*", default=[], help="also files with so many workers")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    args = parser.parse_args()
    warn_if_busy()
    mode: bool | str = True if args.compile == "inductor" else "graph"
    x = (torch.rand(args.images, 784) < 0.13).float()
    table = Table("what", "batch", "ms per step", "/ SVI.epoch", "/ SVI.step")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.npy" for i in range(16)]
        for path, part in zip(paths, x.chunk(16), strict=True):
            np.save(path, part.to(torch.uint8).numpy())
        for batch in args.batch:
            kinds = {"fit": x, "fit, with a folder": x}
            for workers in args.workers:
                kinds[f"fit, DataLoader, {workers} workers"] = DataLoader(
                    TensorDataset(x), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
                )
            for workers in args.stream:
                kinds[f"fit, files, {workers} workers"] = DataLoader(
                    Files(paths), batch, num_workers=workers, persistent_workers=workers > 0
                )
            for number, (name, train) in enumerate(kinds.items()):
                others = Others(x, batch, mode)
                out = f"{folder}/{batch}-{number}" if "folder" in name else None
                fit(new_vae(), train, epochs=args.rounds, batch_size=batch, compile=mode, out=out, callbacks=[others])
                # The first epochs record and compile.
                fits = others.seconds["fit"][1:]
                epochs, steps = (others.seconds[each][-len(fits) - 1 : -1] for each in ("SVI.epoch", "SVI.step"))
                row = {
                    "what": name,
                    "batch": batch,
                    "ms": 1e3 * statistics.median(fits) / -(-args.images // batch),
                    "to_epoch": statistics.median(a / b for a, b in zip(fits, epochs, strict=True)),
                    "to_step": statistics.median(a / b for a, b in zip(fits, steps, strict=True)),
                }
                rows.append(row)
                table.add_row(name, str(batch), f"{row['ms']:.2f}", f"{row['to_epoch']:.3f}", f"{row['to_step']:.3f}")
    Console().print(table)
    if args.json:
        result = {"machine": machine(torch.get_num_threads()), "settings": vars(args), "rows": rows}
        args.json.write_text(json.dumps(result, indent=2, default=str))


if __name__ == "__main__":
    main()
