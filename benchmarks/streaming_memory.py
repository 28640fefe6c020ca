"""Peak memory of ``pyro-vae train`` on data that are larger than the memory that it may use.

Each kind of data is made in two sizes, both above the size up to which the command keeps data in memory. The larger one
is also larger than the limit on the memory of each process (``RLIMIT_DATA``), which the operating system enforces. The
peak must be the same for both sizes: data are read as they are needed. As a control, the last row reads the larger
folder of images into memory, and must fail for lack of memory.

Images are PNG files of 256 x 256 pixels: 100 different ones, each with many names. Arrays are sparse files, which take
no space on the disk.

``python benchmarks/streaming_memory.py`` writes ``results/streaming_memory.md`` and ``.json``; about 5 minutes. Rows of
an earlier run with other data are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import zarr
from frameworks.process import machine
from numpy.lib.format import open_memmap
from PIL import Image

from pyro_vae.cli.look import MOST_NUMBERS
from pyro_vae.scripts import exit_at_interrupt

SIZE, NAMES = 256, 100
NUMBERS = 3 * SIZE * SIZE  # in an image
OPTIONS = ["--network", "mlp", "--network.hidden", "16", "--latent-dim", "2", "--epochs", "1", "--no-tensorboard"]
OPTIONS += ["--batch-size", "32", "--compile", "none", "--pictures-every", "0"]
OPTIONS += ["--likelihood", "normal", "--standardize", "no"]
IN_MEMORY = "from pyro_vae.cli import look, main; look.MOST_NUMBERS = 2**60; raise SystemExit(main())"


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


def zarr_folder(folder: Path, n: int) -> Path:
    """A Zarr folder of bytes."""
    path = folder / "images.zarr"
    shape = (n, 3, SIZE, SIZE)
    zarr.create_array(path, shape=shape, chunks=(1, *shape[1:]), dtype="u1")[:1] = 1
    return path


KINDS = {"PNG images": images, ".npy": npy, ".h5": hdf5, ".zarr": zarr_folder}
COLUMNS = (
    "as floats, GiB",
    "peak, GiB",
    "of it anonymous, GiB",
    "peak of a worker, GiB",
    "of it anonymous in a worker, GiB",
)


def family(process: int) -> list[int]:
    """A process and all processes that it has started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(each for child in children for each in family(int(child)))]


def memory(process: int) -> np.ndarray:
    """The largest resident memory that a process has had so far, and its present anonymous memory, in bytes.

    Anonymous memory is what the process has allocated or inherited; the rest are pages of files, such as libraries.
    """
    lines = dict(line.split(":") for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return np.array([1024 * int(lines[name].split()[0]) for name in ("VmHWM", "RssAnon")])


def peaks(command: list[str], limit: int) -> tuple[np.ndarray, np.ndarray, int, str]:
    """The peak memory of a command and of the largest process that it starts, its exit status, and its errors.

    Args:
        command: The command.
        limit: The limit on the memory that each process may allocate, in bytes.
    """
    largest: dict[int, np.ndarray] = {}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        )
        with process:
            while process.poll() is None:
                with suppress(OSError, KeyError):  # a process has just ended
                    for each in family(process.pid):
                        largest[each] = np.maximum(memory(each), largest.get(each, 0))
                time.sleep(0.1)
        errors.seek(0)
        said = errors.read()
    main = largest.pop(process.pid)
    workers = np.array([*largest.values(), [0, 0]])
    return main, workers.max(0), process.returncode, said


def measure(kind: str, times: float, limit: int, in_memory: bool = False) -> dict[str, object]:
    """Trains on data of this many times the size up to which data are kept in memory.

    Raises:
        SystemExit: If training fails, or does not fail where everything is read into memory.
    """
    n, start = int(times * MOST_NUMBERS / NUMBERS) + 1, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data = KINDS[kind](Path(folder), n)
        program = ["-c", IN_MEMORY] if in_memory else ["-m", "pyro_vae"]
        command = [sys.executable, *program, "train", f"{folder}/run", "--data", str(data), *OPTIONS]
        main, worker, status, said = peaks(command, limit)
    if (status != 0) != in_memory or (in_memory and "memory" not in said):
        raise SystemExit(f"{' '.join(command)} ended with {status}: {said}")
    sizes = dict(zip(COLUMNS, (4 * n * NUMBERS, *main.tolist(), *worker.tolist()), strict=True))
    row: dict[str, object] = {"data": f"{kind}, all in memory" if in_memory else kind, "images": n}
    row |= {name: size / 2**30 for name, size in sizes.items()}
    row |= {"seconds": time.perf_counter() - start, "limit, GiB": limit / 2**30}
    row["result"] = said.strip().splitlines()[-1] if in_memory else "trained"
    print(row, flush=True)
    return row


def table_of(content: dict) -> str:
    lines = [
        "# Memory of training on data larger than memory",
        "",
        "Made by `benchmarks/streaming_memory.py`: `pyro-vae train` for one epoch, with two processes that read data. "
        f"Each process may allocate {content['rows'][0]['limit, GiB']:g} GiB at most (`RLIMIT_DATA`). Peak: the "
        "largest resident memory of the main process. Anonymous: without pages of files, such as libraries.",
        "",
        f"| data | images | {' | '.join(COLUMNS)} | result |",
        f"|---|---|{'---|' * len(COLUMNS)}---|",
    ]
    for row in content["rows"]:
        result = "trained" if row["result"] == "trained" else "fails for lack of memory"
        lines.append(
            f"| {row['data']} | {row['images']:,} | {' | '.join(f'{row[each]:.2f}' for each in COLUMNS)} | {result} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--times", nargs="*", type=float, default=[1.1, 3.3], help="sizes, as multiples of the limit")
    parser.add_argument("--limit", type=float, default=4.0, help="GiB that each process may allocate")
    parser.add_argument("--no-control", action="store_true", help="without the run that reads everything into memory")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    settings = parser.parse_args()
    path, limit = settings.out / "streaming_memory.json", int(settings.limit * 2**30)
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    cases = [(kind, times, limit) for kind in settings.kinds for times in settings.times]
    cases += [] if settings.no_control else [("PNG images", max(settings.times), limit, True)]
    for case in cases:
        new = measure(*case)
        rows = [row for row in rows if (row["data"], row["images"]) != (new["data"], new["images"])] + [new]
        content = {"machine": machine(threads=1), "kept in memory up to, GiB": 4 * MOST_NUMBERS / 2**30, "rows": rows}
        path.write_text(json.dumps(content, indent=2) + "\n")
        (settings.out / "streaming_memory.md").write_text(table_of(content))


if __name__ == "__main__":
    exit_at_interrupt(main)
