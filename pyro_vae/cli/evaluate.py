"""``pyro-vae evaluate``."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

import pyro_vae
from pyro_vae.cli.data import Data
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.run_files import EVIDENCE, by_flag, check_found, data_of, folder_of, rows_of, seen_of, write_json
from pyro_vae.saving.versions import versions
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder

if TYPE_CHECKING:
    from pyro_vae.evidence import ElboCheck, Evidence


@dataclass(frozen=True)
class Evaluate:
    """Estimates log p(x) of each datapoint with the method that it needs, and computes the ELBO in four ways.

    Writes evidence.json to the folder of the run.
    """

    run: Positional[Path]
    """Folder of a run (to use its best weights) or of a saved model; or one checkpoint file."""
    data: Annotated[Data, arg(name="")]
    split: Literal["test", "valid", "train"] = "test"
    """Part of the data to use."""
    limit: Annotated[int | None, by_default("all")] = None
    """Number of datapoints to use, from the first one."""
    tolerance: float = 0.05
    """Upper limit, in nats, of the bias of each log p(x) and of the Monte Carlo error of their mean."""
    max_temperatures: int = 512
    """Largest number of temperatures in annealing. A datapoint that needs more gets a lower bound without an error."""
    certify: int = 0
    """Number of datapoints to draw from the model for a certificate that bounds the error; 0: no certificate."""
    budget: Annotated[float | None, by_default("no limit")] = None
    """Time limit in seconds, after which no further methods are tried."""
    seed: int = 0
    """Random seed."""
    device: Annotated[str | None, by_default("the GPU if there is one")] = None
    """Device, such as cpu or cuda:1."""
    keep: Annotated[Path | None, by_default("none")] = None
    """File for intermediate results: if the command is stopped, the same command resumes from it."""

    def __call__(self) -> None:
        """Evaluates the run.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If an option is invalid, or the data do not fit the VAE.
            OSError: If the folder cannot be written to, or something cannot be read.
        """
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is {self.limit}; expected at least 1")
        check_found(self.run, self.data)
        import torch

        device = choose_device(self.device)
        vae = pyro_vae.load(self.run).to(device)
        folder = writable_folder(folder_of(self.run))
        data = data_of(self.run, self.data)
        x = rows_of(seen_of(self.run, data, self.data), data, self.split, self.limit, vae)[0].to(device)
        vae.check(x)
        torch.manual_seed(self.seed)
        start = time.perf_counter()
        result = pyro_vae.evidence.estimate(
            vae.model,
            vae.guide,
            x,
            tolerance=self.tolerance,
            max_temperatures=self.max_temperatures,
            certify=self.certify,
            budget=self.budget,
            keep=self.keep,
        )
        check = pyro_vae.evidence.check_elbo(vae.model, vae.guide, x)
        seconds = time.perf_counter() - start
        content = {"options": by_flag(self) | by_flag(data), "versions": versions(), "seconds": seconds}
        print(result.summary(), check.summary(), sep="\n\n", flush=True)  # before the file, since the disk may be full
        write_json(folder / EVIDENCE, {**_numbers(result), **_elbos(check), **content})
        print(f"\nwrote {folder / EVIDENCE}")


def _numbers(result: Evidence) -> dict[str, Any]:
    """log p(x) in nats per datapoint, with its errors."""
    numbers = {
        "log_prob": result.mean,
        "log_prob_error": result.mean_error,  # 95%, bias included
        "log_prob_std_error": result.mean_std_error,  # the Monte Carlo part
        "log_prob_population_std_error": result.population_std_error,  # of the finite test set
        "settled": result.settled.double().mean().item(),  # the fraction of datapoints whose error is known
        "log_prob_settled": result.settled_mean,
        "log_prob_settled_error": result.settled_mean_error,
    }
    if result.certificate is not None:
        gap = result.certificate
        numbers |= {"certificate_gap": gap.gap, "certificate_gap_std_error": gap.gap_std_error}
    # An unknown error is infinite, and JSON has no infinity.
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    methods = {row.name: {"datapoints": row.datapoints, "settled": row.settled} for row in result.rungs}
    return {"datapoints": len(result.log_prob), **finite, "methods": methods}


def _elbos(check: ElboCheck) -> dict[str, Any]:
    """The estimates of the ELBO, each with its standard error, and whether they agree."""
    rows = {name: {"value": value, "std_error": error} for name, (value, error) in check.estimates.items()}
    return {"elbo_estimates": rows, "elbos_agree": check.passed, "disagreements": list(check.disagreements)}
