"""q(z | x) compared with draws by NUTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae.evidence.diagnostics.coordinates import coordinate_names
from pyro_vae.evidence.diagnostics.nuts.plot import shifts_and_widths
from pyro_vae.evidence.diagnostics.tolerance import MAX_STANDARD_ERRORS
from pyro_vae.evidence.results.lazy_arviz import arviz_data
from pyro_vae.html_table import WithSummary, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Vehtari et al. 2021, section 4: the bounds for R-hat and for the effective sample size of all chains together.
MAX_R_HAT = 1.01
LEAST_ESS = 400


@dataclass(frozen=True, repr=False)
class NutsComparison(WithSummary):
    """Draws by NUTS and draws from q(z | x), by latent site; every tensor is on the CPU.

    Attributes:
        nuts: The draws by NUTS after its warmup, ``[chains, draws, n, ...]``.
        guide: As many independent draws from the guide, of the same shape.
        ess: The effective sample size of NUTS for the mean, ``[n, ...]``.
        ess_sd: The effective sample size of NUTS for the standard deviation, ``[n, ...]``.
        r_hat: The rank-normalized split R-hat of NUTS, ``[n, ...]`` (Vehtari et al. 2021).
        diverging: Which transitions of NUTS diverged, ``[chains, draws]``.

    Example:
        >>> options = {"num_samples": 10, "warmup_steps": 10}  # too few to converge
        >>> result = evidence.compare_with_nuts(vae.model, vae.guide, x[:1], **options, progress=False)
        >>> result.nuts["z"].shape, result.r_hat["z"].shape
        (torch.Size([2, 10, 1, 2]), torch.Size([1, 2]))
    """

    nuts: dict[str, Tensor]
    guide: dict[str, Tensor]
    ess: dict[str, Tensor]
    ess_sd: dict[str, Tensor]
    r_hat: dict[str, Tensor]
    diverging: Tensor

    @property
    def nuts_mean(self) -> dict[str, Tensor]:
        """The posterior means by NUTS, ``[n, ...]``."""
        return _means(self.nuts)

    @property
    def nuts_sd(self) -> dict[str, Tensor]:
        """The posterior standard deviations by NUTS, ``[n, ...]``."""
        return _sds(self.nuts)

    @property
    def guide_mean(self) -> dict[str, Tensor]:
        """The means of the guide, ``[n, ...]``."""
        return _means(self.guide)

    @property
    def guide_sd(self) -> dict[str, Tensor]:
        """The standard deviations of the guide, ``[n, ...]``."""
        return _sds(self.guide)

    @property
    def shift(self) -> dict[str, Tensor]:
        """Mean of the guide minus mean of NUTS, in standard deviations of NUTS, ``[n, ...]``."""
        means, sds = self.nuts_mean, self.nuts_sd
        return {name: (mean - means[name]) / sds[name] for name, mean in self.guide_mean.items()}

    @property
    def shift_std_error(self) -> dict[str, Tensor]:
        """The Monte Carlo standard error of :attr:`shift`, from both sets of draws, ``[n, ...]``."""
        ratio = self.sd_ratio
        return {name: (1 / ess + ratio[name].square() / self.num_draws).sqrt() for name, ess in self.ess.items()}

    @property
    def sd_ratio(self) -> dict[str, Tensor]:
        """Standard deviation of the guide over that of NUTS, ``[n, ...]``; below 1 where q is too narrow."""
        sds = self.nuts_sd
        return {name: sd / sds[name] for name, sd in self.guide_sd.items()}

    @property
    def sd_ratio_std_error(self) -> dict[str, Tensor]:
        """The Monte Carlo standard error of :attr:`sd_ratio`, from both sets of draws, ``[n, ...]`` (delta method)."""
        relative = {
            name: _relative_variance_of_sd(self.nuts[name], ess)
            + _relative_variance_of_sd(self.guide[name], torch.full_like(ess, self.num_draws))
            for name, ess in self.ess_sd.items()
        }
        return {name: ratio * relative[name].sqrt() for name, ratio in self.sd_ratio.items()}

    @property
    def num_draws(self) -> int:
        """The number of draws of all chains together, ``num_chains * num_samples``; the guide has as many."""
        return self.diverging.numel()

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons not to trust NUTS itself, in words; empty if there are none."""
        doubts = []
        r_hat, ess = _coordinates(self.r_hat), self._ess
        if not (r_hat <= MAX_R_HAT).all():  # NaN, where a chain never moved, is a reason too
            doubts.append(
                f"its chains do not agree, with an R-hat of up to {r_hat.max():.3f} (at most {MAX_R_HAT} is good)"
            )
        if not (ess >= LEAST_ESS).all():
            doubts.append(f"its effective sample size is as low as {ess.min():.0f} (at least {LEAST_ESS} is good)")
        if self.diverging.any():
            doubts.append(f"{int(self.diverging.sum())} of its {self.num_draws} transitions diverged")
        return tuple(doubts)

    @property
    def converged(self) -> bool:
        """Whether NUTS can be trusted, with R-hat at most 1.01, ESS at least 400, no divergences."""
        return not self.doubts

    @property
    def passed(self) -> bool:
        """Whether all means and standard deviations agree within 4 standard errors (false alarms 6e-5 for each).

        False if NUTS has not converged, since then nothing is known.
        """
        return self._agrees is True

    def summary(self) -> str:
        """The comparison in words, with a warning if NUTS itself cannot be trusted."""
        warnings = [f"  WARNING: NUTS has not converged: {doubt}." for doubt in self.doubts]
        if self._stuck.any():
            never_moved = (
                "not known whether q(z | x) agrees with NUTS: its chains never moved in "
                f"{self._stuck.sum()} of {len(self._stuck)} latent coordinates"
            )
            return "\n".join([never_moved, *warnings])
        if warnings:
            warnings.append(
                "  Its draws may not be from the posterior. Take more steps, or look at its chains in ArviZ."
            )
        shift, ratio, names = _coordinates(self.shift), _coordinates(self.sd_ratio), self._names
        worst, low, high = int(np.abs(shift).argmax()), int(ratio.argmin()), int(ratio.argmax())
        lines = [
            _HEADLINES[self._agrees],
            f"  {self._num_datapoints} datapoint{'s' * (self._num_datapoints > 1)}, {len(shift)} latent coordinates",
            f"  NUTS: {self._run}",
            f"  means: {np.median(np.abs(shift)):.2f} sd apart at the median, at most {abs(shift[worst]):.2f} "
            f"({names[worst]}); beyond Monte Carlo error for {self._shifted.sum()}",
            f"  standard deviations: q's over NUTS's {np.median(ratio):.2f} at the median, from {ratio[low]:.2f} "
            f"({names[low]}) to {ratio[high]:.2f} ({names[high]});\n  beyond Monte Carlo error q is narrower for "
            f"{self._narrower.sum()} and wider for {self._wider.sum()}",
        ]
        return "\n".join([*lines, *warnings])

    def plot(self) -> Figure:
        """The shift and the ratio of standard deviations of each latent coordinate, with 4 standard errors."""
        return shifts_and_widths(
            shift=_coordinates(self.shift),
            shift_error=_coordinates(self.shift_std_error),
            ratio=_coordinates(self.sd_ratio),
            ratio_error=_coordinates(self.sd_ratio_std_error),
            differs=self._differs,
        )

    def to_arviz(self) -> Any:
        """Both sets of draws side by side, for ``az.summary``, ``az.plot_forest`` and the like.

        Returns:
            An ``InferenceData`` (ArviZ before 1.0) or a ``DataTree``. In the group ``posterior`` are the latent sites,
            ``[chain, draw, datapoint, ..., source]``, where the source is ``"NUTS"`` or ``"q"``; in ``sample_stats``
            is ``diverging``, of NUTS.
        """
        arrays = {name: torch.stack([self.nuts[name], self.guide[name]], dim=-1).numpy() for name in self.nuts}
        dims = {
            name: ["datapoint", *(f"{name}_dim_{i}" for i in range(value.ndim - 4)), "source"]
            for name, value in arrays.items()
        }
        return arviz_data(
            {"posterior": arrays, "sample_stats": {"diverging": self.diverging.numpy()}},
            dims,
            {"source": ["NUTS", "q"]},
        )

    @property
    def _num_datapoints(self) -> int:
        return len(next(iter(self.r_hat.values())))

    @property
    def _run(self) -> str:
        """The run of NUTS, in words."""
        chains, draws = self.diverging.shape
        words = f"{chains} chains of {draws} draws"
        if len(self._ess):
            words += f", ESS at least {self._ess.min():.0f}, R-hat at most {_coordinates(self.r_hat).max():.3f}"
        return f"{words}, {int(self.diverging.sum())} divergences"

    @property
    def _ess(self) -> np.ndarray:
        """The smaller of both effective sample sizes, of each coordinate."""
        return np.minimum(_coordinates(self.ess), _coordinates(self.ess_sd))

    @property
    def _stuck(self) -> np.ndarray:
        """Where chains have no variance, so that there is no R-hat."""
        return ~np.isfinite(_coordinates(self.r_hat))

    @property
    def _shifted(self) -> np.ndarray:
        return np.abs(_coordinates(self.shift)) > MAX_STANDARD_ERRORS * _coordinates(self.shift_std_error)

    @property
    def _narrower(self) -> np.ndarray:
        return 1 - _coordinates(self.sd_ratio) > MAX_STANDARD_ERRORS * _coordinates(self.sd_ratio_std_error)

    @property
    def _wider(self) -> np.ndarray:
        return _coordinates(self.sd_ratio) - 1 > MAX_STANDARD_ERRORS * _coordinates(self.sd_ratio_std_error)

    @property
    def _differs(self) -> np.ndarray:
        return self._shifted | self._narrower | self._wider

    @property
    def _agrees(self) -> bool | None:
        """Whether q agrees with NUTS; None if that is not known."""
        if self._differs.any():
            return False
        return True if self.converged else None

    @property
    def _names(self) -> list[str]:
        """The names of the coordinates: ``"z[3, 0]"`` is coordinate 0 of datapoint 3."""
        return [each for name, values in self.r_hat.items() for each in coordinate_names(name, values.shape)]

    def __repr__(self) -> str:
        return (
            f"NutsComparison(passed={self.passed}, converged={self.converged}, n={self._num_datapoints}, "
            f"coordinates={len(self._ess)}, num_draws={self.num_draws})"
        )

    def _repr_html_(self) -> str:
        verdict = "not known: its chains never moved" if self._stuck.any() else _VERDICTS[self._agrees]
        rows = {
            "q agrees with NUTS": verdict,
            "datapoints": str(self._num_datapoints),
            "latent coordinates": str(len(self._ess)),
            "means differ": f"in {self._shifted.sum()} coordinates",
            "standard deviations differ": f"q is narrower in {self._narrower.sum()}, wider in {self._wider.sum()}",
            "NUTS": self._run,
            "NUTS converged": "yes" if self.converged else "no: " + "; ".join(self.doubts),
        }
        return html_table(rows)


_HEADLINES = {
    True: "q(z | x) agrees with NUTS, within Monte Carlo error",
    False: "q(z | x) differs from NUTS",
    None: "not known whether q(z | x) agrees with NUTS: no difference was found, but NUTS has not converged",
}
_VERDICTS = {True: "yes", False: "no", None: "not known: NUTS has not converged"}


def _means(draws: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.mean((0, 1)) for name, each in draws.items()}


def _sds(draws: dict[str, Tensor]) -> dict[str, Tensor]:
    flat = {name: each.flatten(0, 1) for name, each in draws.items()}
    # torch warns where there are no datapoints.
    return {name: each.std(0) if each.numel() else each.sum(0) for name, each in flat.items()}


def _relative_variance_of_sd(draws: Tensor, ess: Tensor) -> Tensor:
    """That of the standard deviation of draws ``[chains, draws, n, ...]``; 1 / (2 ess) if they are normal."""
    deviations = draws - draws.mean((0, 1))
    kurtosis = deviations.pow(4).mean((0, 1)) / deviations.square().mean((0, 1)).square()
    return (kurtosis - 1) / (4 * ess)


def _coordinates(sites: dict[str, Tensor]) -> np.ndarray:
    """All coordinates of sites ``[n, ...]``, in one row."""
    return torch.cat([values.flatten().double() for values in sites.values()]).numpy()
