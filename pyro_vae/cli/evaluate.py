"""``pyro-vae evaluate``."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pyro_vae
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.on_run import OnRows
from pyro_vae.cli.run_files import EVIDENCE, by_flag, data_of, write_json
from pyro_vae.saving.versions import versions

if TYPE_CHECKING:
    from pyro_vae.evidence import ElboCheck, Evidence


@dataclass(frozen=True, kw_only=True)
class Evaluate(OnRows):
    """Estimates log p(x) of each datapoint with the method that it needs, and computes the ELBO in four ways.

    Writes evidence.json to the folder of the run.
    """

    split: Literal["test", "valid", "train"] = "test"
    """Part of the data to use."""
    limit: Annotated[int | None, by_default("all")] = None
    """Number of datapoints to use, evenly spaced: the first ones may be of one kind."""
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
    keep: Annotated[Path | None, by_default("none")] = None
    """File for intermediate results: if the command is stopped, the same command resumes from it."""

    def __call__(self) -> None:
        """Evaluates the run.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If an option is invalid, or the data do not fit the VAE.
            OSError: If the folder cannot be written to, or something cannot be read.
        """
        vae, x, _, out = self.open_rows(None, EVIDENCE)
        import torch

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
        options = by_flag(self) | by_flag(data_of(self.run, self.data))
        content = {"options": options, "versions": versions(), "seconds": seconds}
        print(result.summary(), check.summary(), sep="\n\n", flush=True)  # before the file, since the disk may be full
        write_json(out, {**_numbers(result), **_elbos(check), **content})
        print(f"\nwrote {out}")

    def chosen(self, n: int) -> Any:
        """Which of n datapoints to use, as an index."""
        from pyro_vae.system.rows import evenly_spaced

        return evenly_spaced(n, self.limit or n)


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
    methods = {row.name: {"datapoints": row.datapoints, "settled": row.settled} for row in result.methods}
    return {"datapoints": len(result.log_prob), **finite, "methods": methods}


def _elbos(check: ElboCheck) -> dict[str, Any]:
    """The estimates of the ELBO, each with its standard error, and whether they agree."""
    rows = {name: {"value": value, "std_error": error} for name, (value, error) in check.estimates.items()}
    return {"elbo_estimates": rows, "elbos_agree": check.passed, "disagreements": list(check.disagreements)}
