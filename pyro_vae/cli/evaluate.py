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
from pyro_vae.devices import choose_device
from pyro_vae.evidence import ElboCheck, Evidence
from pyro_vae.folders import writable_folder
from pyro_vae.training.folders import versions

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Estimates log p(x) by importance sampling, and the ELBO by four ways that must agree.

    Writes evidence.json to the folder of the run.
    """

    run: Positional[Path]
    """Folder of the run, of which the best weights are taken; or one of its checkpoints."""
    data: Annotated[Data, arg(name="")]
    split: Literal["test", "valid", "train"] = "test"
    """Which of the data."""
    limit: int | None = None
    """Datapoints, the first ones; by default all."""
    num_samples: int = 500
    """Importance samples for each datapoint."""
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
        result = evidence.importance(vae.model, vae.guide, x, num_samples=self.num_samples, resume=self.keep)
        check = evidence.check_elbo(vae.model, vae.guide, x)
        seconds = time.perf_counter() - start
        content = {"options": by_flag(self) | by_flag(data), "versions": versions(), "seconds": seconds}
        write_json(folder / EVIDENCE, {**_numbers(result), **_elbos(check), **content})
        print(result.summary(), check.summary(), f"wrote {folder / EVIDENCE}", sep="\n\n")


def _numbers(result: Evidence) -> dict[str, Any]:
    """log p(x) in nats per datapoint, and how far to believe it."""
    numbers = {
        "log_prob": result.mean,
        "log_prob_std_error": result.mean_std_error,
        "log_prob_bias": result.mean_bias,
        "log_prob_population_std_error": result.population_std_error,
        "log_prob_psis": result.log_prob_psis.mean().item(),
        "elbo": result.elbo.mean().item(),
        "ess_median": result.ess.median().item(),
        "ess_min": result.ess.min().item(),
        "pareto_k_max": result.pareto_k.max().item(),
        "pareto_k_above_0.7": result.doubtful.double().mean().item(),
    }
    # JSON has no infinity, which k-hat is where there are too few samples, nor NaN.
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    return {"datapoints": len(result.log_prob), "num_samples": result.num_samples, **finite}


def _elbos(check: ElboCheck) -> dict[str, Any]:
    """The estimates of the ELBO, each with its standard error, and whether they agree."""
    rows = {name: {"value": value, "std_error": error} for name, (value, error) in check.estimates.items()}
    return {"elbo_estimates": rows, "elbos_agree": check.agree, "disagreements": list(check.disagreements)}
