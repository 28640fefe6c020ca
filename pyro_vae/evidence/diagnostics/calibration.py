"""Is q(z | x) the posterior? Simulation-based calibration: ranks of true latents among draws from the guide."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.checks import check_count, check_rows
from pyro_vae.evidence.estimators.simulation import simulate
from pyro_vae.evidence.results.lazy_arviz import import_arviz
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.chunks import choose_rows, particle_counts
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.plots import new_figure
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import x_alone
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Layout, Program, no_sites, sample_sites, terms_at, vectorized

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Calibration", "calibrate"]

ORDER = 4  # of the smooth test: shift, width, skewness and tails
# With fewer datapoints the test sees little, and the chi-square distribution no longer holds in its tail.
LEAST_DATAPOINTS = 50
# What the ranks of a coordinate that failed the test show is named if it stands out by so many standard errors.
NAMED_BEYOND = 2.0
MOST_LINES = 10
LOG_JOINT, PROJECTION = "log p(x, z)", "random projection"
NUM_PROJECTIONS = 8
SITE = "site "  # before the name of a latent site, in the names of columns


@dataclass(frozen=True)
class Calibration:
    """The ranks of true latents among draws from q(z | x); uniform where q is the posterior.

    Attributes:
        ranks: By latent site, ``[n, ...]``, int64 on the CPU: how many of the draws lie below the true value, from 0 to
            ``num_draws``. Ties count as below or above at random.
        num_draws: The number of draws from the guide for each of the n simulated datapoints.
        joint_ranks: The same for functions of all latents together, which see how they depend on each other and on x:
            ``"log p(x, z)"``, ``[n]``, and ``"random projection"``, ``[n, 8]``. With one latent coordinate there are no
            projections.
    """

    ranks: dict[str, Tensor]
    num_draws: int
    joint_ranks: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_datapoints(self) -> int:
        """The number of datapoints that were simulated, n."""
        return len(next(iter(self.ranks.values())))

    @property
    def num_tests(self) -> int:
        """How many p-values there are: one for each latent coordinate, and one for each function of all of them."""
        return sum(ranks[0].numel() for ranks in (*self.ranks.values(), *self.joint_ranks.values()))

    @property
    def p_values(self) -> dict[str, Tensor]:
        """By latent site, ``[...]``: the p-value of each coordinate, under the hypothesis that its ranks are uniform.

        Neyman's smooth test of order 4 (Rayner, Thas & Best 2009, chapter 4): the four lowest orthonormal polynomials
        of the rank, each summed over the datapoints; the sum of their squares is chi-square with 4 degrees of freedom.
        It puts its power where a wrong posterior shows: shift, width, skewness and tails. With 50 datapoints p-values
        below 1e-3 come up to twice as often as they should, with 100 those below 1e-4, and with 1000 as often.
        """
        return {name: _smooth_test(ranks, self.num_draws) for name, ranks in self.ranks.items()}

    @property
    def joint_p_values(self) -> dict[str, Tensor]:
        """Those of the functions of all latents together, ``[...]``, by their names in :attr:`joint_ranks`."""
        return {name: _smooth_test(ranks, self.num_draws) for name, ranks in self.joint_ranks.items()}

    def calibrated(self, false_alarm: float = 0.01) -> bool:
        """Whether nothing speaks against q being the posterior.

        Args:
            false_alarm: The probability of saying no if q is the posterior, for all coordinates and all functions of
                them together (Bonferroni).

        Raises:
            ValueError: If it is not between 0 and 1, or there are fewer than 50 datapoints, too few to tell.
        """
        return not self.departures(false_alarm)

    def departures(self, false_alarm: float = 0.01) -> dict[str, str]:
        """What is wrong with q, in words, by latent coordinate such as ``"z[3]"``; the worst first.

        Where a coordinate is wrong, so are most functions of it. So ``"log p(x, z)"`` and ``"random
        projection[2]"`` are here only where each coordinate by itself has the right ranks.

        Args:
            false_alarm: As of :meth:`calibrated`.

        Raises:
            ValueError: As :meth:`calibrated`.
        """
        if not 0 < false_alarm < 1:
            raise ValueError(f"false_alarm is {false_alarm!r}; expected a number between 0 and 1")
        if self.num_datapoints < LEAST_DATAPOINTS:
            raise ValueError(
                f"the ranks are those of {self.num_datapoints} datapoints, too few to tell whether they are uniform; "
                f"expected at least {LEAST_DATAPOINTS}"
            )
        most = false_alarm / self.num_tests
        coordinates = {
            label: f"{_departure(ranks, self.num_draws)} (p = {p_value:.2g})"
            for label, (p_value, ranks) in _tested(self.ranks, self.p_values).items()
            if p_value < most
        }
        return coordinates or {
            label: f"{_joint_departure(label, ranks, self.num_draws)} (p = {p_value:.2g})"
            for label, (p_value, ranks) in _tested(self.joint_ranks, self.joint_p_values).items()
            if p_value < most
        }

    def summary(self, false_alarm: float = 0.01) -> str:
        """The result in words: what was tested, whether the ranks are uniform, and if not, what is wrong with q."""
        n = self.num_datapoints
        kind = f"  {n} datapoint{'s' * (n > 1)} drawn from the model, ranks among {self.num_draws} draws from the guide"
        if n < LEAST_DATAPOINTS:
            return (
                f"not known whether q(z | x) is the posterior: fewer than {LEAST_DATAPOINTS} datapoints cannot tell\n"
                f"{kind}"
            )
        departures, columns = self.departures(false_alarm), self._columns()
        if not departures:
            least = next(iter(columns.values()))[0]
            return (
                f"calibrated: nothing speaks against q(z | x) being the posterior\n{kind}\n"
                f"  uniform for {self._tests()}: least p-value {least:.2g}, with false alarms of "
                f"{100 * false_alarm:.3g}% it would have to be below {false_alarm / len(columns):.2g}"
            )
        lines = [
            f"NOT calibrated: q(z | x) is not the posterior\n{kind}",
            f"  tested: {self._tests()}, at false alarms of {100 * false_alarm:.3g}% together; not uniform for:",
            *(f"  {label}: {what}" for label, what in list(departures.items())[:MOST_LINES]),
        ]
        if len(departures) > MOST_LINES:
            lines.append(f"  and {len(departures) - MOST_LINES} more")
        if departures.keys() & _tested(self.joint_ranks, self.joint_p_values).keys():
            lines.append(
                "  Each latent coordinate by itself has the right ranks: it is how the latents depend on each other,\n"
                "  or on x, that is wrong."
            )
        return "\n".join(lines)

    def _tests(self) -> str:
        """What was tested, in words."""
        count = sum(ranks[0].numel() for ranks in self.ranks.values())
        words = [f"all {count} latent coordinates"]
        if LOG_JOINT in self.joint_ranks:
            words.append(LOG_JOINT)
        if PROJECTION in self.joint_ranks:
            words.append(f"{self.joint_ranks[PROJECTION].shape[1]} random projections of all latents")
        return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

    def pit(self) -> dict[str, Tensor]:
        """Probability integral transforms by the names of all ranks, ``[n, ...]``: uniform on [0, 1] if those are.

        A rank stands for an interval of length 1 / (num_draws + 1); the place within it is random, from a generator of
        its own, so that the values are the same at every call.
        """
        generator = torch.Generator().manual_seed(0)
        return {
            name: (ranks + torch.rand(ranks.shape, generator=generator, dtype=torch.float64)) / (self.num_draws + 1)
            for name, ranks in (self.ranks | self.joint_ranks).items()
        }

    def to_arviz(self) -> Any:
        """The values of :meth:`pit` in the group ``prior_sbc``, where ArviZ looks for them, ``[chain, draw, ...]``.

        Returns:
            A ``DataTree``, for ``az.plot_ecdf_pit`` as it stands, or an ``InferenceData`` (ArviZ before 1.0). A draw is
            a simulated datapoint; there is one chain.
        """
        arrays = {name: values[None].numpy() for name, values in self.pit().items()}
        dims = {name: [f"{name}_dim_{i}" for i in range(values.ndim - 2)] for name, values in arrays.items()}
        return _sbc_data(arrays, dims)

    def plot(self, prob: float = 0.95, max_plots: int = 12) -> Figure:
        """ArviZ's plot of the ECDF of the ranks minus that of uniform ones, a panel for each coordinate and function.

        The line of a calibrated guide stays in the band. q is too narrow where it rises above the band at the left and
        falls below it at the right, too wide where it does the reverse; it lies too high where the line is above the
        band throughout, too low where it is below (Säilynoja et al. 2022, section 2).

        Args:
            prob: How often a calibrated coordinate stays within its band all along: of 20 panels, one may be outside.
            max_plots: The largest number of panels; those of the smallest p-values, in the order of the sites, those of
                functions of all latents last.

        Raises:
            ValueError: If prob is not between 0 and 1, or max_plots not a positive integer.
        """
        if not 0 < prob < 1:
            raise ValueError(f"prob is {prob!r}; expected a number between 0 and 1")
        worst = set(list(self._columns())[: check_count("max_plots", max_plots)])
        values = {label: column.numpy() for label, column in _by_coordinate(self.pit()) if label in worst}
        figure = _draw(values, self.num_draws, prob)
        figure.suptitle(f"ECDF of ranks minus uniform, {self.num_datapoints} datapoints, {prob:.0%} bands")
        return figure

    def _columns(self) -> dict[str, tuple[float, Tensor]]:
        """Of all that is tested: its p-value, and its ranks ``[n]``. The smallest p-value first."""
        return _tested(self.ranks | self.joint_ranks, self.p_values | self.joint_p_values)

    def __str__(self) -> str:
        return self.summary()


@evidence_function
@torch.no_grad()
def calibrate(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_draws: int = 99,
    chunk_size: int | None = None,
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> Calibration:
    """Simulation-based calibration of the guide (Talts et al. 2018, section 4.1; Modrák et al. 2023).

    Draws z from the prior and x from the model given z: z is then an exact draw from p(z | x). If q(z | x) is that
    posterior too, z and draws from q are exchangeable, and the rank of any function of z and x among its values at the
    draws is uniform on 0 to num_draws. Ranked are

    - each coordinate of the latents, which shows a shift, a wrong width or shape, but no dependence;
    - log p(x, z) (Modrák et al. 2023), which sees how latents depend on each other and on x: the prior as a
      guide, which ignores x, is right in every coordinate and fails here;
    - 8 random projections of all coordinates, each in standard deviations of its draws, where there are several.

    What is wrong with q in none of these is not seen; nor does this say anything of real data if the model is wrong.

    Values that are missing from x, NaN or hidden by a mask of the model, are missing from the simulated data as well:
    so the guide is tried on what it gets to see. That is right if they are missing for reasons that have nothing to do
    with their values.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x, observed at one site.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``, n at least 50, or a ``Dataset`` or ``DataLoader`` of them. Only their number, their
            kind and what is missing of them matter: as many are drawn from the model. A few can be repeated.
        num_draws: Draws from the guide for each datapoint, at least 4. With 99 there are 100 ranks. Those of a block of
            datapoints are held in memory.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Whether to show a progress bar; or a function that wraps the blocks, as ``tqdm.tqdm`` does.
        keep: A file for what is done. If it is there, the call goes on from it, to the same numbers as if it had not
            been stopped. At most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x has fewer than 50 rows or is not accepted by the programs, the programs share no data plate,
            their sites do not match, the model does not observe x at one site or takes missing values for data, or a
            draw is NaN.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    num_draws = check_count("num_draws", num_draws, least=ORDER)
    x = x_alone(model, x)
    if len(check_rows(x)) < LEAST_DATAPOINTS:
        raise ValueError(
            f"x has {len(x)} datapoint{'s' * (len(x) > 1)}, too few for their ranks to tell; expected at least "
            f"{LEAST_DATAPOINTS}: repeat its rows, of which only the number, the kind and what is missing matter"
        )
    programs = Programs(model, guide, x, chunk_size)
    layout = programs.layout

    def rank(block: Tensor, first: int) -> dict[str, Tensor]:
        x, true = simulate(model, guide, block, layout)
        drawn: dict[str, list[Tensor]] = {name: [] for name in (*true, LOG_JOINT)}
        for num_particles in particle_counts(num_draws, len(block), programs.chunk_size):
            guided = poutine.trace(vectorized(guide, num_particles, layout)).get_trace(x)
            latents = {name: site["value"] for name, site in sample_sites(guided) if name in true}
            for name, value in latents.items():
                drawn[name].append(layout.by_datapoint(value))
                _check_numbers(name, drawn[name][-1], true[name], first)
            drawn[LOG_JOINT].append(_log_joint(model, x, latents, num_particles, layout))
        draws = {name: torch.cat(parts) for name, parts in drawn.items()}
        at_true = {name: layout.by_site(value[None]) for name, value in true.items()}
        log_joint = _log_joint(model, x, at_true, 1, layout)[0]
        # Of a sum that is computed twice, in batches of other sizes.
        rounding = 8 * torch.finfo(log_joint.dtype).eps * log_joint.abs().clamp_min(1)
        return {
            **{f"{SITE}{name}": _ranks(value, draws[name]) for name, value in true.items()},
            LOG_JOINT: _ranks(log_joint, draws[LOG_JOINT], rounding),
            **_projection_ranks(true, draws),
        }

    return programs.run(
        rank,
        partial(_calibration, num_draws),
        rows=choose_rows(programs.chunk_size, num_draws),
        settings={"function": "calibrate", "num_draws": num_draws, "num_projections": NUM_PROJECTIONS},
        progress=progress,
        description="calibration",
        keep=keep,
        processes=processes,
    )


def _calibration(num_draws: int, columns: dict[str, Tensor]) -> Calibration:
    sites = {name.removeprefix(SITE): ranks for name, ranks in columns.items() if name.startswith(SITE)}
    joint = {name: ranks for name, ranks in columns.items() if not name.startswith(SITE)}
    return Calibration(sites, num_draws, joint)


def _log_joint(model: Program, x: Tensor, latents: dict[str, Tensor], num_particles: int, layout: Layout) -> Tensor:
    """log p(x, z), ``[particles, n]``; minus infinity where z is impossible, as draws of a guide may be."""
    at = terms_at(model, no_sites, x, latents, num_particles, layout)
    return (at.log_prior + at.log_likelihood).nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _projection_ranks(true: dict[str, Tensor], draws: dict[str, Tensor]) -> dict[str, Tensor]:
    """The ranks of random projections of latents ``[n, ...]`` among those of draws ``[draws, n, ...]``, by name.

    A coordinate is divided by its standard deviation, in which the true value counts like a draw: so all of them are
    treated alike, and their projections are exchangeable if they are. In float64, so that equal draws remain equal.
    """
    n = len(next(iter(true.values())))
    pooled = (torch.cat([value[None], draws[name]]).double() for name, value in true.items())
    every = torch.cat([values.reshape(len(values), n, -1) for values in pooled], dim=-1)
    if every.shape[-1] == 1:
        return {}
    every = (every - every.mean(0)) / every.std(0).clamp_min(torch.finfo(torch.float64).tiny)
    directions = torch.randn(every.shape[-1], NUM_PROJECTIONS, generator=torch.Generator().manual_seed(0)).to(every)
    projected = every.nan_to_num() @ directions / every.shape[-1] ** 0.5
    return {PROJECTION: _ranks(projected[0], projected[1:], torch.full_like(projected[0], 1e-10))}


def _ranks(true: Tensor, draws: Tensor, rounding: Tensor | None = None) -> Tensor:
    """How many of the draws ``[draws, n, ...]`` lie below the true values ``[n, ...]``, equal ones at random."""
    ties = draws == true
    if rounding is not None:
        ties |= (draws - true).abs() <= rounding
    return ((draws < true) & ~ties).sum(0) + _uniform_up_to(ties.sum(0))


def _check_numbers(name: str, draws: Tensor, true: Tensor, first: int) -> None:
    for values, program in ((draws, "guide"), (true[None], "model")):
        if values.isnan().any():
            index = first + int(values.isnan().nonzero()[0, 1])
            raise ValueError(f"site {name!r} of the {program} draws NaN at simulated datapoint {index}")


def _uniform_up_to(ties: Tensor) -> Tensor:
    """A random integer from 0 to each of these: among equal draws, the true value has any place."""
    return (torch.rand(ties.shape, device=ties.device, dtype=torch.float64) * (ties + 1)).long()


def _smooth_test(ranks: Tensor, num_draws: int) -> Tensor:
    """The p-values of ranks ``[n, ...]`` under the hypothesis that they are uniform, ``[...]``."""
    columns = ranks.reshape(len(ranks), -1)
    counts = columns.new_zeros(num_draws + 1, columns.shape[1]).scatter_add_(0, columns, torch.ones_like(columns))
    components = _polynomials(num_draws) @ counts.double() / math.sqrt(len(ranks))
    half = components.square().sum(0) / 2
    return ((1 + half) * (-half).exp()).reshape(ranks.shape[1:])  # the chi-square survival function for ORDER = 4


def _polynomials(num_draws: int) -> Tensor:
    """Orthonormal polynomials of degree 1 to 4 under the uniform distribution on the ranks, ``[4, num_draws + 1]``."""
    powers = torch.linspace(-1, 1, num_draws + 1, dtype=torch.float64) ** torch.arange(ORDER + 1)[:, None]
    return torch.linalg.qr(powers.T).Q.T[1:] * math.sqrt(num_draws + 1)


def _departure(ranks: Tensor, num_draws: int) -> str:
    """How ranks ``[n]`` that are not uniform differ from uniform ones, in words."""
    root_n = math.sqrt(len(ranks))
    place = (ranks + 0.5) / (num_draws + 1)
    above = ((place > 0.5).double() + (place == 0.5).double() / 2).mean().item()
    within = ((place - 0.5).abs() < 0.25).double().mean().item()
    expected = ((torch.arange(num_draws + 1) + 0.5) / (num_draws + 1) - 0.5).abs().lt(0.25).double().mean().item()
    shift = (above - 0.5) * 2 * root_n
    spread = (expected - within) / math.sqrt(expected * (1 - expected)) * root_n
    words = []
    # Ranks that pile up at one end leave the central half as well, though never by more than they leave the middle.
    if abs(shift) > max(NAMED_BEYOND, abs(spread) / 2):
        where, side = ("low", "above") if shift > 0 else ("high", "below")
        words.append(f"q lies too {where}: {max(above, 1 - above):.0%} of the true values are {side} its median")
    if abs(spread) > NAMED_BEYOND and (spread < 0 or spread > abs(shift)):
        shape = "narrow (ranks pile up at both ends)" if spread > 0 else "wide (ranks pile up in the middle)"
        words.append(f"q is too {shape}: its central {expected:.0%} holds {within:.0%} of the true values")
    return "; ".join(words) or "q has another shape than the posterior, see the plot"


def _joint_departure(label: str, ranks: Tensor, num_draws: int) -> str:
    """The same for a function of all latents."""
    if label != LOG_JOINT:
        return f"{_departure(ranks, num_draws)} (along a random direction)"
    place = (ranks + 0.5) / (num_draws + 1)
    above, within = (chosen.double().mean().item() for chosen in (place > 0.5, (place - 0.5).abs() < 0.25))
    return (
        f"{above:.0%} of the true latents are likelier than q's median draw, {within:.0%} are within q's central half"
    )


def _tested(sites: dict[str, Tensor], p_values: dict[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
    """By coordinate of sites ``[n, ...]``: its p-value, and its ranks ``[n]``. The smallest p-value first."""
    labelled = _by_coordinate({name: p_values[name][None] for name in sites})
    columns = {
        label: (p_value.item(), ranks)
        for (label, p_value), (_, ranks) in zip(labelled, _by_coordinate(sites), strict=True)
    }
    return dict(sorted(columns.items(), key=lambda item: item[1][0]))


def _by_coordinate(sites: dict[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """The coordinates of sites ``[n, ...]``: a label such as ``"z[0, 3]"``, and a column ``[n]``."""
    for name, values in sites.items():
        indices = product(*map(range, values.shape[1:]))
        for index, column in zip(indices, values.reshape(len(values), -1).unbind(1), strict=True):
            yield f"{name}[{', '.join(map(str, index))}]" if index else name, column


def _sbc_data(arrays: dict[str, Any], dims: dict[str, list[str]]) -> Any:
    arviz, is_new = import_arviz()
    if is_new:
        return arviz.from_dict({"prior_sbc": arrays}, dims=dims)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the group is not in the schema of before 1.0
        return arviz.InferenceData(prior_sbc=arviz.dict_to_dataset(arrays, dims=dims))


def _draw(values: dict[str, Any], num_draws: int, prob: float) -> Figure:
    """Draws a panel for each label and array ``[n]`` of values that are to be uniform on [0, 1]."""
    arviz, is_new = import_arviz()
    columns = min(4, len(values))
    rows = -(-len(values) // columns)
    size = (3 * columns + 1, 2.4 * rows + 0.6)
    if is_new:
        return _draw_with_collection(arviz, values, prob, size)
    from scipy.stats import uniform  # ArviZ before 1.0 depends on it

    figure = new_figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (label, column) in zip(panels, values.items(), strict=False):
        arviz.plot_ecdf(
            column,
            eval_points=torch.linspace(0, 1, num_draws + 2)[1:-1].double().numpy(),
            cdf=uniform.cdf,
            rvs=uniform().rvs,
            difference=True,
            confidence_bands="simulated",
            ci_prob=prob,
            num_trials=1000,
            random_state=0,
            ax=axes,
            show=False,
            backend="matplotlib",
        )
        axes.set_title(label)
    for axes in panels[len(values) :]:
        axes.set_axis_off()
    return figure


def _draw_with_collection(arviz: Any, values: dict[str, Any], prob: float, size: tuple[float, float]) -> Figure:
    from matplotlib import pyplot

    data = arviz.from_dict({"prior_sbc": {label: column[None] for label, column in values.items()}})
    options = {"figsize": size, "sharey": False, "layout": "constrained"}
    with arviz.rc_context({"plot.max_subplots": len(values)}):
        collection = arviz.plot_ecdf_pit(
            data, envelope_prob=prob, backend="matplotlib", figure_kwargs=options, visuals={"p_value_text": False}
        )
    figure = collection.viz["figure"].item()
    # This ArviZ marks the points that speak against uniformity, by a test of its own, and is about to give up bands.
    # The inequality of Dvoretzky, Kiefer & Wolfowitz (Massart 1990) gives one, wider than need be at the ends.
    half_width = math.sqrt(math.log(2 / (1 - prob)) / (2 * len(next(iter(values.values())))))
    for axes in figure.axes[: len(values)]:
        axes.axhspan(-half_width, half_width, alpha=0.2, zorder=0)
        axes.autoscale(axis="y")  # it cuts lines off
    pyplot.close(figure)  # or pyplot would keep it
    return figure
