"""log p(x) between two bounds, on data from the model itself: bidirectional Monte Carlo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.estimators.annealing import check_path, path_from, pilot
from pyro_vae.evidence.estimators.simulation import simulate
from pyro_vae.evidence.results.error_bars import student
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import x_alone
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program, log_mean_exp

__all__ = ["Sandwich", "sandwich"]


@dataclass(frozen=True)
class Sandwich:
    """Stochastic bounds on log p(x), in nats, for n datapoints that were drawn from the model.

    On average ``lower`` is at most log p(x) and ``upper`` at least.

    Attributes:
        x: The datapoints, ``[n, *event]``, NaN where those that they are modelled on are.
        lower: By annealed importance sampling from the start to the posterior, ``[n]``.
        upper: By its reverse, from the exact draw of the posterior that each datapoint was drawn with, ``[n]``.
        acceptance: The acceptance rate of the moves, both ways, ``[n]``.
    """

    x: Tensor
    lower: Tensor
    upper: Tensor
    acceptance: Tensor

    @property
    def gap(self) -> float:
        """The mean of ``upper - lower``: on average, no less than the error of either bound."""
        return (self.upper - self.lower).mean().item()

    @property
    def gap_std_error(self) -> float:
        """The standard error of ``gap``, over datapoints, which are independent; infinite for a single one."""
        return _std_error(self.upper - self.lower)

    def summary(self) -> str:
        """Both bounds and the gap, in words."""
        n, accepted = len(self.lower), f"moves accepted: {self.acceptance.mean():.0%}"
        bounds = f"log p(x) is from {self.lower.mean().item():.3f} to {self.upper.mean().item():.3f} nats"
        if n == 1:
            lines = [
                f"{bounds}, on average, for one datapoint that was drawn from the model",
                f"  gap {self.gap:.3f} nats: one cannot tell its error; {accepted}",
            ]
        else:
            spread = student(n - 1) * max(_std_error(self.lower), _std_error(self.upper))
            lines = [
                f"{bounds} (+- {spread:.3f}, for the choice of datapoints)",
                f"  means over {n} datapoints that were drawn from the model, with 95% errors",
                f"  gap {self.gap:.3f} +- {student(n - 1) * self.gap_std_error:.3f} nats; {accepted}",
            ]
        if not self.gap <= 1:
            lines.append("  The gap is wide: take more temperatures.")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def _std_error(values: Tensor) -> float:
    return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf


@evidence_function
def sandwich(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_chains: int = 32,
    num_temperatures: int = 500,
    num_leapfrog: int = 10,
    start: str = "prior",
    chunk_size: int | None = None,
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> Sandwich:
    """Encloses log p(x), for data drawn from the model, by bidirectional Monte Carlo (Grosse et al. 2015).

    A datapoint that is drawn along with its latents comes with an exact draw from its posterior. Annealing from there
    back to the start gives unbiased estimates of 1 / p(x), and with it an upper bound on log p(x) on average, as
    annealing forwards gives a lower one. If the gap is small then :func:`annealed`, with the same settings, is accurate
    on such data: and so on real data, as far as the model resembles them (Wu et al. 2017).

    Args:
        model: A Pyro program called as ``model(x)``, with one observed site, at which x is observed.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Datapoints that the programs accept, ``[n, *event]``, or a ``Dataset`` or ``DataLoader`` of them: as many are
            drawn, of the same shape and kind, and with the same values missing (NaN, or hidden by a mask of the model).
            A few can be repeated.
        num_chains: Chains for each datapoint in either direction, at least 2.
        num_temperatures: Steps from the start to the posterior, at least 1.
        num_leapfrog: Leapfrog steps of each transition; their size is adapted to an acceptance rate of 0.8.
        start: ``"prior"``, ``"guide"`` or ``"laplace"``, as of :func:`annealed`.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Whether to show a progress bar; or a function that wraps the blocks, as ``tqdm.tqdm`` does.
        keep: A file for what is done. If it is there, the call goes on from it, to the same numbers as if it had not
            been stopped. At most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: As :func:`annealed`; or if the model does not observe x at one site, or takes missing values for
            data.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    num_chains = check_count("num_chains", num_chains, least=2)
    settings = check_path(num_temperatures, num_leapfrog, start)
    x = x_alone(model, x)
    programs = Programs(model, guide, x, chunk_size)
    layout = programs.layout

    def enclose(block: Tensor, first: int) -> dict[str, Tensor]:  # noqa: ARG001
        drawn = simulate(model, guide, block, layout)
        path = path_from(start, programs, drawn.x, num_leapfrog)
        schedule = pilot(path, num_temperatures, start)
        forward = path.forward(num_chains, schedule)
        latents = {
            name: layout.by_site(value.expand(num_chains, *value.shape)) for name, value in drawn.latents.items()
        }
        backward = path.reverse(path.start.log_joint.vectors.to_vectors(latents), schedule)
        return {
            "x": drawn.x,
            "lower": log_mean_exp(forward.log_weights),
            "upper": -log_mean_exp(-backward.log_weights),
            "acceptance": (forward.acceptance + backward.acceptance) / 2,
        }

    return programs.run(
        enclose,
        lambda columns: Sandwich(**columns),
        rows=max(1, programs.chunk_size // num_chains),
        settings={"function": "sandwich", "num_chains": num_chains, **settings},
        progress=progress,
        keep=keep,
        processes=processes,
    )
