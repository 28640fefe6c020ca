"""Peak memory of ``pyro-vae train`` on data that are larger than the limit up to which they are kept in memory.

Each kind of data is made in two sizes. The peak must be the same: data are read as they are needed. Images are PNG
files of 128 x 128 pixels: 200 different ones, each with many names. Arrays are sparse files, which hold no place on the
disk. Rows of an earlier run with other data stay in the result.

``python benchmarks/streaming_memory.py`` writes ``results/streaming_memory.md`` and ``.json``; about 20 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
from frameworks.process import machine
from numpy.lib.format import open_memmap
from PIL import Image

from pyro_vae.cli.look import MOST_NUMBERS
from pyro_vae.scripts import exit_at_interrupt

SIZE, NAMES = 128, 200
NUMBERS = 3 * SIZE * SIZE  # in an image
OPTIONS = ["--network", "mlp", "--network.hidden", "16", "--latent-dim", "2", "--epochs", "1", "--no-tensorboard"]
OPTIONS += ["--batch-size", "32", "--compile", "none", "--pictures-every", "0"]
OPTIONS += ["--likelihood", "normal", "--standardize", "no"]


def images(folder: Path, n: int) -> Path:
    """A folder of PNG files."""
    rng = np.random.default_rng(0)
    folder /= "images"
    folder.mkdir()
    for i in range(n):
        path = folder / f"{i:07}.png"
        if i < NAMES:
            coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(SIZE // 8, 0).repeat(SIZE // 8, 1)).save(path)
        else:
            os.link(folder / f"{i % NAMES:07}.png", path)
    return folder


def npy(folder: Path, n: int) -> Path:
    """A file .npy of bytes."""
    path = folder / "images.npy"
    open_memmap(path, "w+", np.uint8, (n, 3, SIZE, SIZE))[:1] = 1
    return path


def hdf5(folder: Path, n: int) -> Path:
    """A file .h5 of bytes."""
    path = folder / "images.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (n, 3, SIZE, SIZE), "u1")[:1] = 1
    return path


KINDS = {"PNG images": images, ".npy": npy, ".h5": hdf5}


def family(process: int) -> list[int]:
    """A process and all processes that it has started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(each for child in children for each in family(int(child)))]


def memory(process: int) -> int:
    """The largest resident memory that a process has had so far, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def peaks(command: list[str]) -> tuple[int, int, float]:
    """The peak memory of a command and of the largest process that it starts, in bytes, and its time in seconds."""
    start, largest = time.perf_counter(), {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with suppress(OSError, StopIteration):  # a process has just ended
                largest |= {each: memory(each) for each in family(process.pid)}
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    main = largest.pop(process.pid)
    return main, max(largest.values(), default=0), time.perf_counter() - start


def measure(kind: str, times: float) -> dict[str, object]:
    n = int(times * MOST_NUMBERS / NUMBERS) + 1
    with tempfile.TemporaryDirectory() as folder:
        data = KINDS[kind](Path(folder), n)
        command = [sys.executable, "-m", "pyro_vae", "train", f"{folder}/run", "--data", str(data), *OPTIONS]
        main, worker, seconds = peaks(command)
    sizes = {
        "as floats, GiB": 4 * n * NUMBERS / 2**30,
        "peak, GiB": main / 2**30,
        "peak of a worker, GiB": worker / 2**30,
    }
    row = {"data": kind, "images": n, **sizes, "seconds": seconds}
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--times", nargs="*", type=float, default=[1.1, 2.2], help="sizes, as multiples of the limit")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    settings = parser.parse_args()
    path = settings.out / "streaming_memory.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for kind in settings.kinds:
        for times in settings.times:
            new = measure(kind, times)
            rows = [row for row in rows if (row["data"], row["images"]) != (kind, new["images"])] + [new]
    result = {"machine": machine(threads=1), "limit, GiB": 4 * MOST_NUMBERS / 2**30, "rows": rows}
    path.write_text(json.dumps(result, indent=2) + "\n")
    lines = ["| data | images | as floats, GiB | peak, GiB | peak of a worker, GiB |", "|---|---|---|---|---|"]
    shown = ("as floats, GiB", "peak, GiB", "peak of a worker, GiB")
    lines += [
        f"| {row['data']} | {row['images']:,} | {' | '.join(f'{row[each]:.2f}' for each in shown)} |" for row in rows
    ]
    (settings.out / "streaming_memory.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    exit_at_interrupt(main)
