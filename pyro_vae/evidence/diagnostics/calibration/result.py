"""What simulation-based calibration finds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.diagnostics.calibration.plot import ecdf_panels
from pyro_vae.evidence.diagnostics.calibration.uniformity import density_departure, departure, smooth_test
from pyro_vae.evidence.diagnostics.coordinates import coordinate_names
from pyro_vae.evidence.results.lazy_arviz import import_arviz
from pyro_vae.html_table import WithSummary, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# With fewer datapoints the test has little power, and the chi-square distribution is wrong in its tail.
LEAST_DATAPOINTS = 50
MOST_LINES = 10
LOG_JOINT, PROJECTION = "log p(x, z)", "random projection"  # names in joint_ranks


@dataclass(frozen=True, repr=False)
class Calibration(WithSummary):
    """The ranks of true latents among draws from q(z | x), which are uniform if q is the posterior.

    Attributes:
        ranks: By latent site, ``[n, ...]``, int64 on the CPU: how many of the draws lie below the true value, from 0 to
            ``num_draws``. Ties are broken at random.
        num_draws: The number of draws from the guide for each of the n simulated datapoints.
        joint_ranks: The same for functions of all latents together, which depend on how the latents depend on each
            other and on x: ``"log p(x, z)"``, ``[n]``, and ``"random projection"``, ``[n, 8]``. With one latent
            coordinate there are no projections.

    Example:
        >>> calibration = evidence.calibrate(vae.model, vae.guide, vae.sample(100), progress=False)
        >>> print(calibration)
        NOT calibrated: q(z | x) is not the posterior
          100 datapoints drawn from the model, ranks among 99 draws from the guide
          ...
        >>> calibration.ranks["z"].shape
        torch.Size([100, 2])
    """

    ranks: dict[str, Tensor]
    num_draws: int
    joint_ranks: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_datapoints(self) -> int:
        """The number of simulated datapoints, n."""
        return len(next(iter(self.ranks.values())))

    @property
    def num_tests(self) -> int:
        """The number of p-values, one for each latent coordinate, and one for each function of all latents."""
        return sum(ranks.shape[1:].numel() for ranks in (*self.ranks.values(), *self.joint_ranks.values()))

    @property
    def p_values(self) -> dict[str, Tensor]:
        """By latent site, the p-value of each coordinate, ``[...]``, under the hypothesis that its ranks are uniform.

        Neyman's smooth test of order 4 (Rayner, Thas & Best 2009, chapter 4): the four lowest orthonormal polynomials
        of the rank, each summed over the datapoints; the sum of their squares is chi-square with 4 degrees of freedom.
        Its power is in shift, width, skewness and tails. With 50 datapoints, p-values below 1e-3 are up to twice as
        frequent as they should be; with 100, those below 1e-4; with 1000 they are right.
        """
        return {name: smooth_test(ranks, self.num_draws) for name, ranks in self.ranks.items()}

    @property
    def joint_p_values(self) -> dict[str, Tensor]:
        """The p-values of the functions of all latents, ``[...]``, by their names in ``joint_ranks``."""
        return {name: smooth_test(ranks, self.num_draws) for name, ranks in self.joint_ranks.items()}

    @property
    def passed(self) -> bool:
        """Whether no test rejects that q is the posterior, with 1% false alarms; ``not departures(rate)`` for others.

        Raises:
            ValueError: If there are fewer than 50 datapoints, too few to tell.
        """
        return not self.departures()

    def departures(self, false_alarm: float = 0.01) -> dict[str, str]:
        """What is wrong with q, in words, by latent coordinate such as ``"z[3]"``; the worst first. Empty if nothing.

        If a coordinate is wrong, so are most functions of it. So ``"log p(x, z)"`` and ``"random projection[2]"`` are
        listed only if each coordinate by itself has uniform ranks.

        Args:
            false_alarm: The probability of any departure if q is the posterior, for all coordinates and all functions
                of them together (Bonferroni).

        Raises:
            ValueError: If false_alarm is not between 0 and 1, or there are fewer than 50 datapoints, too few to tell.
        """
        if not 0 < false_alarm < 1:
            raise ValueError(f"false_alarm is {false_alarm!r}; expected a number between 0 and 1")
        if self.num_datapoints < LEAST_DATAPOINTS:
            raise ValueError(
                f"the ranks are those of {self.num_datapoints} datapoints, too few to tell whether they are uniform; "
                f"expected at least {LEAST_DATAPOINTS}"
            )
        level = false_alarm / self.num_tests
        for sites in (self.ranks, self.joint_ranks):
            found = [test for test in self._tests(sites) if test.p_value < level]
            if found:
                return {test.name: f"{self._words(test)} (p = {test.p_value:.2g})" for test in found}
        return {}

    def _words(self, test: _Test) -> str:
        if test.name == LOG_JOINT:
            return density_departure(test.ranks, self.num_draws)
        words = departure(test.ranks, self.num_draws)
        return f"{words} (along a random direction)" if test.name.startswith(PROJECTION) else words

    def summary(self, false_alarm: float = 0.01) -> str:
        """The result in words: what was tested, whether the ranks are uniform, and if not, what is wrong with q."""
        n = self.num_datapoints
        data = (
            f"  {n} datapoint{'s' * (n != 1)} drawn from the model, ranks among {self.num_draws} draws from the guide"
        )
        if n < LEAST_DATAPOINTS:
            return (
                f"not known whether q(z | x) is the posterior: fewer than {LEAST_DATAPOINTS} datapoints cannot tell\n"
                f"{data}"
            )
        departures = self.departures(false_alarm)
        if not departures:
            return (
                f"calibrated: no test rejects that q(z | x) is the posterior\n{data}\n"
                f"  ranks of {self._tested} are uniform: smallest p-value {self._smallest_p_value:.2g}; below "
                f"{false_alarm / self.num_tests:.2g} it would be a departure ({100 * false_alarm:.3g}% false alarms)"
            )
        lines = [
            f"NOT calibrated: q(z | x) is not the posterior\n{data}",
            f"  tested: {self._tested}, with {100 * false_alarm:.3g}% false alarms in all; not uniform:",
            *(f"  {name}: {what}" for name, what in list(departures.items())[:MOST_LINES]),
        ]
        if len(departures) > MOST_LINES:
            lines.append(f"  and {len(departures) - MOST_LINES} more")
        if departures.keys() & {test.name for test in self._tests(self.joint_ranks)}:
            lines.append(
                "  Each latent coordinate by itself has the right ranks. What is wrong is how the latents depend on\n"
                "  each other, or on x."
            )
        return "\n".join(lines)

    @property
    def _tested(self) -> str:
        """What was tested, in words."""
        count = sum(ranks.shape[1:].numel() for ranks in self.ranks.values())
        words = [f"all {count} latent coordinates"]
        if LOG_JOINT in self.joint_ranks:
            words.append(LOG_JOINT)
        if PROJECTION in self.joint_ranks:
            words.append(f"{self.joint_ranks[PROJECTION].shape[1]} random projections of all latents")
        return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

    @property
    def _smallest_p_value(self) -> float:
        return min(p.min().item() for p in (self.p_values | self.joint_p_values).values() if p.numel())

    def _tests(self, sites: Mapping[str, Tensor]) -> list[_Test]:
        """The tests of all coordinates of sites ``[n, ...]``, the smallest p-value first."""
        p_values = [p for ranks in sites.values() for p in smooth_test(ranks, self.num_draws).flatten().tolist()]
        columns = _by_coordinate(sites).items()
        tests = [_Test(name, p_value, ranks) for (name, ranks), p_value in zip(columns, p_values, strict=True)]
        return sorted(tests, key=lambda test: test.p_value)

    def pit(self) -> dict[str, Tensor]:
        """Probability integral transforms by the names of all ranks, ``[n, ...]``: uniform on [0, 1] if the ranks are.

        A rank stands for an interval of length 1 / (num_draws + 1). The place within it is random, from a generator
        with a fixed seed, so that every call returns the same values.
        """
        generator = torch.Generator().manual_seed(0)
        return {
            name: (ranks + torch.rand(ranks.shape, generator=generator, dtype=torch.float64)) / (self.num_draws + 1)
            for name, ranks in (self.ranks | self.joint_ranks).items()
        }

    def to_arviz(self) -> Any:
        """The values of :meth:`pit` in the group ``prior_sbc``, where ArviZ looks for them, ``[chain, draw, ...]``.

        Returns:
            A ``DataTree``, which ``az.plot_ecdf_pit`` takes, or an ``InferenceData`` (ArviZ before 1.0). A draw is a
            simulated datapoint; there is one chain.
        """
        arrays = {name: values[None].numpy() for name, values in self.pit().items()}
        dims = {name: [f"{name}_dim_{i}" for i in range(values.ndim - 2)] for name, values in arrays.items()}
        arviz, is_new = import_arviz()
        if is_new:
            return arviz.from_dict({"prior_sbc": arrays}, dims=dims)
        # The group is not in the schema of ArviZ before 1.0.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return arviz.InferenceData(prior_sbc=arviz.dict_to_dataset(arrays, dims=dims))

    def plot(self, prob: float = 0.95, max_plots: int = 12) -> Figure:
        """The ECDF of the ranks minus that of uniform ones: a panel for each coordinate and function.

        The line of a calibrated guide stays in the band. q is too narrow if the line is above the band at the left and
        below it at the right, too wide if it is the other way round. q lies too high if the line is above the band
        everywhere, too low if it is below (Säilynoja et al. 2022, section 2).

        Args:
            prob: The probability that the whole line of a calibrated coordinate is in the band: of 20 panels, expect
                one outside.
            max_plots: The largest number of panels. Those of the smallest p-values are drawn, in the order of the
                sites; functions of all latents come last.

        Raises:
            ValueError: If prob is not between 0 and 1, or max_plots is not a positive integer.
        """
        if not 0 < prob < 1:
            raise ValueError(f"prob is {prob!r}; expected a number between 0 and 1")
        max_plots = check_count("max_plots", max_plots)
        worst = {test.name for test in self._tests(self.ranks | self.joint_ranks)[:max_plots]}
        ranks = {
            name: column for name, column in _by_coordinate(self.ranks | self.joint_ranks).items() if name in worst
        }
        figure = ecdf_panels(ranks, self.num_draws, prob)
        title = f"ECDF of ranks minus uniform\n{self.num_datapoints} datapoints, {100 * prob:g}% bands"
        figure.suptitle(title, fontsize="medium")
        return figure

    def __repr__(self) -> str:
        n = self.num_datapoints
        passed = self.passed if n >= LEAST_DATAPOINTS else None
        return f"Calibration(passed={passed}, n={n}, num_draws={self.num_draws}, num_tests={self.num_tests})"

    def _repr_html_(self) -> str:
        n = self.num_datapoints
        rows = {"datapoints": f"{n}, simulated from the model", "draws from the guide": f"{self.num_draws} each"}
        if n < LEAST_DATAPOINTS:
            return html_table({"calibrated": "not known: too few datapoints", **rows})
        departures = self.departures()
        rows |= {"tested": self._tested, "smallest p-value": f"{self._smallest_p_value:.2g}"}
        return html_table(
            {"calibrated": "no" if departures else "yes", **rows, **dict(list(departures.items())[:MOST_LINES])}
        )


class _Test(NamedTuple):
    name: str  #: The coordinate, such as ``"z[3]"``.
    p_value: float
    ranks: Tensor  #: ``[n]``


def _by_coordinate(sites: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The coordinates of sites ``[n, ...]`` by name, each ``[n]``."""
    return {
        coordinate: column
        for name, values in sites.items()
        for coordinate, column in zip(
            coordinate_names(name, values.shape[1:]), values.reshape(len(values), -1).unbind(1), strict=True
        )
    }
