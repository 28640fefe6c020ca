"""log p(x) between two bounds, on data drawn from the model: bidirectional Monte Carlo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.estimators.annealing import check_path, path_from, pilot
from pyro_vae.evidence.estimators.simulation import simulate
from pyro_vae.evidence.results.sandwich import Sandwich
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import x_alone
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program, log_mean_exp


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
    """Bounds log p(x) from both sides on data drawn from the model, by bidirectional Monte Carlo (Grosse et al. 2015).

    A datapoint that is drawn along with its latents comes with an exact draw from its posterior. Annealing from there
    back to the start gives unbiased estimates of 1 / p(x), and so an upper bound on log p(x) on average, while
    annealing forwards gives a lower bound. If the gap is small, :func:`annealed` with the same settings is accurate on
    such data; and on real data, as far as the model resembles them (Wu et al. 2017).

    Args:
        model: A Pyro program called as ``model(x)``, with one observed site, at which x is observed.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, as for :func:`~pyro_vae.evidence.estimate`, for programs of x alone. As many datapoints are drawn, of
            the same shape and kind, with the same missing values (NaN, or hidden by a mask of the model). Rows may be
            repeated.
        num_chains: Chains for each datapoint in either direction, at least 2.
        num_temperatures: Steps from the start to the posterior, at least 1.
        num_leapfrog: The leapfrog steps of each transition; their size is adapted to an acceptance rate of 0.8.
        start: ``"prior"``, ``"guide"`` or ``"laplace"``, as for :func:`annealed`.
        chunk_size, progress, keep, processes: As for :func:`~pyro_vae.evidence.estimate`.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: As for :func:`annealed`; or if the model does not observe x at one site, or treats missing values as
            data.
        Interrupted: At Ctrl-C, with the result for the finished datapoints.

    Example:
        >>> options = {"num_chains": 8, "num_temperatures": 10, "num_leapfrog": 2}
        >>> bounds = evidence.sandwich(vae.model, vae.guide, x, **options, progress=False)
        >>> bounds.gap < 1
        True
    """
    num_chains = check_count("num_chains", num_chains, least=2)
    settings = check_path(num_temperatures, num_leapfrog, start)
    programs = Programs(model, guide, x_alone(model, x), chunk_size, progress, keep, processes)
    layout = programs.layout

    def enclose(block: Tensor, first: int) -> dict[str, Tensor]:  # noqa: ARG001
        drawn = simulate(programs.model, programs.guide, block, layout)
        path = path_from(start, programs, drawn.x, num_leapfrog)
        schedule = pilot(path, num_temperatures, start)
        forward = path.forward(num_chains, schedule)
        latents = {
            name: layout.by_site(value.expand(num_chains, *value.shape)) for name, value in drawn.latents.items()
        }
        backward = path.reverse(path.start.log_joint.to_vectors(latents), schedule)
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
    )
