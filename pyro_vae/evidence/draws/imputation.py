"""Missing values, filled in with their posterior predictive means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_choice, check_count
from pyro_vae.evidence.draws.resampling import posterior_draws
from pyro_vae.evidence.draws.settled_draws import in_pieces, rows_of_block, settled_draws
from pyro_vae.evidence.results.imputation import Imputation
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.unconstrained.log_joint import FastDensities
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import x_alone
from pyro_vae.system.progress import Progress
from pyro_vae.system.warning import warn
from pyro_vae.weights import Layout, Program, sample_sites, trace_of


@evidence_function
def impute(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_samples: int = 1000,
    num_draws: int = 0,
    method: str = "settled",
    chunk_size: int | None = None,
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> Imputation:
    """Fills in every NaN of x with its mean given the observed values of its datapoint.

    This is the mean of p(x | z) over draws of z from the posterior p(z | observed values) (Mattei & Frellsen 2019,
    section 3). The draws are made by the method that :func:`~pyro_vae.evidence.estimate` finds for each datapoint, so
    the guide need not be good. A warning gives the number of datapoints for which no method works.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x, observed at one site. The
            distribution there accepts NaN, as that of ``likelihoods.Incomplete`` does.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, as for :func:`~pyro_vae.evidence.estimate`, for programs of x alone; NaN where missing.
        num_samples: Draws from the posterior of each datapoint, chosen among ten times as many.
        num_draws: How many complete data sets to return as well, ``result.draws``: with draws from the posterior
            predictive distribution instead of its mean, for multiple imputation. At most ``num_samples``.
        method: How draws from the posterior are made. ``"settled"`` is described above. ``"guide"`` chooses among draws
            from the guide by their weights (Mattei & Frellsen 2019, section 3.2): fast, and right where the guide is
            good; ``doubtful`` then is a k-hat above 0.7.
        chunk_size, progress, keep, processes: As for :func:`~pyro_vae.evidence.estimate`.

    Returns:
        The filled data ``x`` and how well they are known: ``std``, ``ess``, ``pareto_k`` and ``doubtful``.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: As for :func:`~pyro_vae.evidence.importance`; or if the model does not observe x at one site.
        Interrupted: At Ctrl-C, with the result for the finished datapoints.

    Example:
        >>> likelihood, network = likelihoods.Incomplete(vae.likelihood), nn.FillMissing(vae.posterior.network)
        >>> vae = VAE(vae.prior, likelihood, posteriors.Normal(network))
        >>> x[0, :, :2] = float("nan")  # the upper half of an image
        >>> bool(evidence.impute(vae.model, vae.guide, x, num_samples=50, progress=False).x.isnan().any())
        False
    """
    num_samples = check_count("num_samples", num_samples)
    num_draws = check_count("num_draws", num_draws, least=0)
    check_choice("method", method, ("settled", "guide"))
    if num_draws > num_samples:
        raise ValueError(f"num_draws is {num_draws}; expected at most num_samples, which is {num_samples}")
    programs = Programs(model, guide, x_alone(model, x), chunk_size, progress, keep, processes)
    x, fast = programs.x, FastDensities()
    rows_at_once = max(1, programs.chunk_size // num_samples)

    def fill(block: Tensor, first: int) -> dict[str, Tensor]:
        columns = _unchanged(block, num_draws)
        rows = block.isnan().reshape(len(block), -1).any(1).nonzero()[:, 0]
        if not len(rows):
            return columns
        if not programs.independent:  # the other rows matter for the posterior
            rows = torch.arange(len(block), device=block.device)
        part = fill_rows(block[rows], [first + row for row in rows.tolist()])
        return {name: old.index_copy(0, rows.to(old.device), part[name]) for name, old in columns.items()}

    def fill_rows(block: Tensor, indices: Sequence[int]) -> dict[str, Tensor]:
        if method == "guide":
            drawn = posterior_draws(programs.model, programs.guide, block, num_samples, programs.layout)
        else:
            drawn = settled_draws(programs, block, num_samples, indices, fast)
        pieces = in_pieces(programs, block, drawn.latents, rows_at_once)
        parts = [_predict(programs, *piece, num_samples, num_draws) for piece in pieces]
        mean, std, draws = (torch.cat(part).to(block.dtype) for part in zip(*parts, strict=True))
        missing = block.isnan()
        columns = {
            "x": torch.where(missing, mean, block),
            "std": std.masked_fill(~missing, 0.0),
            "ess": drawn.ess,
            "pareto_k": drawn.pareto_k,
            "doubtful": drawn.doubtful,
        }
        if num_draws:
            columns["draws"] = torch.where(missing[:, None], draws, block[:, None])
        return columns

    def finish(columns: dict[str, Tensor]) -> Imputation:
        missing = x[: len(columns["x"])].isnan()
        return Imputation(
            x=columns["x"].to(x.device),
            std=columns["std"].to(x.device),
            missing=missing,
            ess=columns["ess"],
            pareto_k=columns["pareto_k"],
            doubtful=columns["doubtful"] & missing.reshape(len(missing), -1).any(1).cpu(),
            num_samples=num_samples,
            draws=columns["draws"].movedim(1, 0).contiguous().to(x.device) if num_draws else None,
        )

    result = programs.run(
        fill,
        finish,
        rows=rows_of_block(chunk_size, num_samples),
        settings={"function": "impute", "num_samples": num_samples, "num_draws": num_draws, "method": method},
    )
    if doubtful := int(result.doubtful.sum()):
        warn(
            f"for {doubtful} of {len(x)} datapoints, the draws may not be from the posterior, and the filled values "
            "may be wrong: see result.doubtful",
        )
    return result


def _unchanged(x: Tensor, num_draws: int) -> dict[str, Tensor]:
    """The columns of datapoints ``[n, *event]`` without missing values, for which nothing is drawn."""
    unknown = torch.full((len(x),), torch.nan, dtype=torch.float64)
    columns = {"x": x.clone(), "std": torch.zeros_like(x), "ess": unknown, "pareto_k": unknown}
    columns["doubtful"] = torch.zeros(len(x), dtype=torch.bool)
    if num_draws:
        columns["draws"] = x[:, None].repeat(1, num_draws, *[1] * (x.ndim - 1))
    return columns


def _predict(
    programs: Programs, x: Tensor, latents: dict[str, Tensor], num_samples: int, num_draws: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The posterior predictive distribution of x.

    Args:
        programs: Model and guide.
        x: Datapoints, ``[n, *event]``.
        latents: Posterior draws by site, ``[num_samples, n, ...]``.
        num_samples: The number of draws.
        num_draws: The number of them for which to draw x as well.

    Returns:
        Its mean and standard deviation, each ``[n, *event]``, and draws, ``[n, num_draws, *event]``.
    """
    layout = programs.layout
    mean, square, variance = (torch.zeros_like(x, dtype=torch.float64) for _ in range(3))
    draws: list[Tensor] = []
    for some in torch.arange(num_samples, device=x.device).split(max(1, programs.chunk_size // len(x))):
        at = {name: layout.by_site(value[some]) for name, value in latents.items()}
        fn = _observed(programs.model, x, at, len(some), layout)

        def as_x(value: Tensor, count: int = len(some)) -> Tensor:
            return layout.by_datapoint(value).reshape(count, *x.shape).double()

        means = as_x(fn.mean)
        mean += means.sum(0)
        square += means.square().sum(0)
        variance += as_x(_variance(fn)).sum(0)
        if some[0] < num_draws:
            draws.append(as_x(fn.sample()))
    mean = mean / num_samples
    # The law of total variance.
    std = ((square / num_samples - mean.square()).clamp_min(0.0) + variance / num_samples).sqrt()
    drawn = torch.cat(draws)[:num_draws] if draws else x.new_empty(0, *x.shape, dtype=torch.float64)
    return mean, std, drawn.movedim(0, 1)


def _observed(model: Program, x: Tensor, latents: dict[str, Tensor], count: int, layout: Layout) -> Any:
    """The distribution p(x | z) at the site where the model observes x, at this number of draws of the latents."""
    trace = trace_of(model, x, count, layout, latents)
    every = [site["fn"] for _, site in sample_sites(trace) if site["is_observed"]]
    if len(every) != 1 or every[0].mean.numel() != count * x.numel():
        shapes = [list(fn.mean.shape) for fn in every]
        raise ValueError(f"the model observes values of shapes {shapes}; expected x, at one site")
    return every[0]


def _variance(fn: Any) -> Tensor:
    """The variance of a distribution; without a closed form, the squared deviation of a draw, which has that mean."""
    try:
        return fn.variance
    except (NotImplementedError, AttributeError):
        return (fn.sample() - fn.mean).square()
