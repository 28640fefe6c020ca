"""``pyro-vae evaluate``."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from tyro.conf import Positional, arg

from pyro_vae import evidence, load
from pyro_vae.cli.data import Data
from pyro_vae.cli.run_files import EVIDENCE, by_flag, data_of, folder_of, write_json
from pyro_vae.evidence import ElboCheck, Evidence
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder
from pyro_vae.training.run_folder import versions

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Estimates log p(x) of each datapoint by the method that it needs, and the ELBO by four ways that must agree.

    Writes evidence.json to the folder of the run.
    """

    run: Positional[Path]
    """Folder of the run, of which the best weights are taken; or one of its checkpoints."""
    data: Annotated[Data, arg(name="")]
    split: Literal["test", "valid", "train"] = "test"
    """Which of the data."""
    limit: int | None = None
    """Datapoints, the first ones; by default all."""
    tolerance: float = 0.05
    """What the bias of each log p(x) and the noise of their mean are to stay below, in nats."""
    max_temperatures: int = 512
    """The most temperatures of an annealed chain: a datapoint that needs more gets a lower bound, without an error."""
    certify: int = 0
    """Datapoints to draw from the model, on which the error of the procedure can be bounded; 0 for no certificate."""
    budget: float | None = None
    """Seconds after which no more methods are tried; by default as long as it takes."""
    seed: int = 0
    """Of all that is random."""
    device: str | None = None
    """Such as cpu or cuda:1; by default the GPU if there is one."""
    keep: Path | None = None
    """File that keeps what is done: after a stop, the same command goes on from it."""

    def __call__(self) -> None:
        """Evaluates.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If an option has a value that cannot be, or the data are not what the VAE takes.
            OSError: If the folder cannot be written to, or something cannot be read.
        """
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit is {self.limit}; expected at least 1")
        device = choose_device(self.device)
        vae = load(self.run).to(device)
        folder = writable_folder(folder_of(self.run))
        data = data_of(self.run, self.data)
        x = data.binarized(getattr(data.load(), self.split)[: self.limit]).to(device)
        vae.check(x)
        torch.manual_seed(self.seed)
        start = time.perf_counter()
        result = evidence.estimate(
            vae.model,
            vae.guide,
            x,
            tolerance=self.tolerance,
            max_temperatures=self.max_temperatures,
            certify=self.certify,
            budget=self.budget,
            keep=self.keep,
        )
        check = evidence.check_elbo(vae.model, vae.guide, x)
        seconds = time.perf_counter() - start
        content = {"options": by_flag(self) | by_flag(data), "versions": versions(), "seconds": seconds}
        print(result.summary(), check.summary(), sep="\n\n", flush=True)  # first, since a disk may be full
        write_json(folder / EVIDENCE, {**_numbers(result), **_elbos(check), **content})
        print(f"\nwrote {folder / EVIDENCE}")


def _numbers(result: Evidence) -> dict[str, Any]:
    """log p(x) in nats per datapoint, with its errors."""
    numbers = {
        "log_prob": result.mean,
        "log_prob_error": result.mean_error,  # 95%, bias included
        "log_prob_std_error": result.mean_std_error,  # the Monte Carlo part
        "log_prob_population_std_error": result.population_std_error,  # of the finite test set
        "settled": result.settled.double().mean().item(),  # the share of the datapoints whose error is known
        "log_prob_settled": result.settled_mean,
        "log_prob_settled_error": result.settled_mean_error,
    }
    if result.certificate is not None:
        gap = result.certificate
        numbers |= {"certificate_gap": gap.gap, "certificate_gap_std_error": gap.gap_std_error}
    # JSON has no infinity, which an error is that is not known.
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    methods = {row.name: {"datapoints": row.datapoints, "settled": row.settled} for row in result.rungs}
    return {"datapoints": len(result.log_prob), **finite, "methods": methods}


def _elbos(check: ElboCheck) -> dict[str, Any]:
    """The estimates of the ELBO, each with its standard error, and whether they agree."""
    rows = {name: {"value": value, "std_error": error} for name, (value, error) in check.estimates.items()}
    return {"elbo_estimates": rows, "elbos_agree": check.passed, "disagreements": list(check.disagreements)}
