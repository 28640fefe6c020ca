"""A contestant in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["Process", "machine", "private_answers", "warn_if_busy"]


class Process:
    """Reads lines and answers each with a line of JSON; between them it waits, and does not spin.

    It has so many threads, and an empty cache of compiled code of its own: compiling takes what it takes at first.
    """

    def __init__(self, command: list[str], threads: int) -> None:
        self.cache = tempfile.TemporaryDirectory()
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # until stop
        count = str(threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "NPROC": count,  # XLA's
            "TORCHINDUCTOR_CACHE_DIR": self.cache.name,
            "TQDM_DISABLE": "1",
        }
        cores = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_setaffinity") else None
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
            preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
        )

    def answer(self) -> Any:
        """The next one.

        Raises:
            RuntimeError: If the process has ended; with the last line that it wrote to stderr.
        """
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        last = [line.strip() for line in self.errors if line.strip()][-1:]
        raise RuntimeError(last[0] if last else f"ended with status {self.process.returncode}")

    def ask(self, line: str) -> Any:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.answer()

    def stop(self) -> list[str]:
        """Returns the warnings that it gave."""
        self.process.stdin.close()
        self.process.wait()
        self.errors.seek(0)
        warnings = [line.strip() for line in self.errors if "Warning: " in line]
        self.process.stdout.close()
        self.errors.close()
        self.cache.cleanup()
        return warnings


@contextmanager
def private_answers() -> Iterator[TextIO]:
    """Stdout for answers alone: what libraries print goes to stderr."""
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        yield answers


def warn_if_busy() -> None:
    load = os.getloadavg()[0]
    if load > 0.3:
        print(
            f"other work runs here (load {load:.1f}): where threads wait for each other, times mean little",
            file=sys.stderr,
        )


def machine(threads: int) -> dict[str, Any]:
    """What it is measured on, and with which versions."""
    import platform
    from datetime import UTC, datetime
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    import torch

    def version_of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    )
    packages = ["torch", "pyro-ppl", "pyro-vae", "zuko", "jax", "jaxlib", "numpyro", "pythae", "numpy"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": names[0].split(":")[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {package: version_of(package) for package in packages},
    }
