"""q(z | x) beside a long run of NUTS: is the guide the posterior of these very datapoints?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_sample
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.diagnostics.elbo_check import MAX_STANDARD_ERRORS
from pyro_vae.evidence.results.lazy_arviz import arviz_data, import_arviz
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.runner.unscaled import Unscaled
from pyro_vae.programs.inputs import by_row
from pyro_vae.system.grad_mode import differentiable, gradients_enabled
from pyro_vae.system.interrupts import Interrupted
from pyro_vae.system.progress import Progress, shown
from pyro_vae.weights import Layout, Program, sample_sites, terms_at, trace_pair, vectorized

__all__ = ["NutsComparison", "compare_with_nuts"]

# Vehtari et al. 2021, section 4: the bounds for R-hat and for the effective sample size of all chains together.
MAX_R_HAT = 1.01
LEAST_ESS = 400

Chain = tuple[dict[str, Tensor], list[int]]  # its draws, by site [draws, ...], and the indices of those that diverged


@dataclass(frozen=True)
class NutsComparison:
    """Draws of NUTS and of q(z | x), by latent site; every tensor is on the CPU.

    Attributes:
        nuts: The draws of NUTS after its warmup, ``[chains, draws, n, ...]``.
        guide: As many independent draws of the guide, of the same shape.
        ess: The effective sample size of NUTS for the mean, ``[n, ...]``.
        ess_sd: That for the standard deviation, ``[n, ...]``.
        r_hat: The rank-normalized split R-hat of NUTS, ``[n, ...]`` (Vehtari et al. 2021).
        diverging: Which transitions of NUTS diverged, ``[chains, draws]``.
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
        return {name: draws.mean((0, 1)) for name, draws in self.nuts.items()}

    @property
    def nuts_sd(self) -> dict[str, Tensor]:
        """The posterior standard deviations by NUTS, ``[n, ...]``."""
        return {name: draws.flatten(0, 1).std(0) for name, draws in self.nuts.items()}

    @property
    def guide_mean(self) -> dict[str, Tensor]:
        """The means of the guide, ``[n, ...]``."""
        return {name: draws.mean((0, 1)) for name, draws in self.guide.items()}

    @property
    def guide_sd(self) -> dict[str, Tensor]:
        """The standard deviations of the guide, ``[n, ...]``."""
        return {name: draws.flatten(0, 1).std(0) for name, draws in self.guide.items()}

    @property
    def shift(self) -> dict[str, Tensor]:
        """Mean of the guide minus mean of NUTS, in standard deviations of NUTS, ``[n, ...]``."""
        means, sds = self.nuts_mean, self.nuts_sd
        return {name: (mean - means[name]) / sds[name] for name, mean in self.guide_mean.items()}

    @property
    def shift_std_error(self) -> dict[str, Tensor]:
        """The Monte Carlo standard error of :attr:`shift`, of both sets of draws, ``[n, ...]``."""
        ratio = self.sd_ratio
        return {name: (1 / ess + ratio[name].square() / self.num_draws).sqrt() for name, ess in self.ess.items()}

    @property
    def sd_ratio(self) -> dict[str, Tensor]:
        """Standard deviation of the guide over that of NUTS, ``[n, ...]``: below 1 where q is too narrow."""
        sds = self.nuts_sd
        return {name: sd / sds[name] for name, sd in self.guide_sd.items()}

    @property
    def sd_ratio_std_error(self) -> dict[str, Tensor]:
        """The Monte Carlo standard error of :attr:`sd_ratio`, of both sets of draws, ``[n, ...]`` (delta method)."""
        relative = {
            name: _relative_variance_of_sd(self.nuts[name], ess)
            + _relative_variance_of_sd(self.guide[name], torch.full_like(ess, self.num_draws))
            for name, ess in self.ess_sd.items()
        }
        return {name: ratio * relative[name].sqrt() for name, ratio in self.sd_ratio.items()}

    @property
    def num_draws(self) -> int:
        """The number of draws of all chains together, and of those of the guide."""
        return self.diverging.numel()

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why NUTS itself is not to be believed, in sentences; empty if nothing speaks against it."""
        doubts = []
        r_hat, ess = _columns(self.r_hat), np.minimum(_columns(self.ess), _columns(self.ess_sd))
        if not r_hat.max() <= MAX_R_HAT:  # NaN, where a chain never moved, is no good either
            doubts.append(
                f"its chains do not agree, with an R-hat of up to {r_hat.max():.3f} (at most {MAX_R_HAT} is good)"
            )
        if not ess.min() >= LEAST_ESS:
            doubts.append(f"its effective sample size is as low as {ess.min():.0f} (at least {LEAST_ESS} is good)")
        if self.diverging.any():
            doubts.append(f"{int(self.diverging.sum())} of its {self.num_draws} transitions diverged")
        return tuple(doubts)

    @property
    def converged(self) -> bool:
        """Whether nothing speaks against NUTS: R-hat at most 1.01, ESS at least 400, no divergences."""
        return not self.doubts

    @property
    def agrees(self) -> bool:
        """Whether all means and standard deviations agree within 4 standard errors; false alarms: 6e-5 for each.

        Not so where its chains never moved, so that nothing is known.
        """
        return not (self._shifted.any() or self._narrower.any() or self._wider.any() or self._stuck.any())

    def summary(self) -> str:
        """The comparison in words, with a warning where NUTS itself should not be believed."""
        if self._stuck.any():
            return "\n".join(
                [
                    "not known whether q(z | x) agrees with NUTS: its chains never moved in "
                    f"{self._stuck.sum()} of {len(self._stuck)} latent coordinates",
                    *(f"  WARNING: NUTS has not converged: {doubt}." for doubt in self.doubts),
                ]
            )
        shift, ratio = _columns(self.shift), _columns(self.sd_ratio)
        labels, count = self._labels, len(shift)
        r_hat, ess = _columns(self.r_hat), np.minimum(_columns(self.ess), _columns(self.ess_sd))
        chains, draws = self.diverging.shape
        worst = int(np.abs(shift).argmax())
        low, high = int(ratio.argmin()), int(ratio.argmax())
        lines = [
            "q(z | x) agrees with NUTS, to Monte Carlo error" if self.agrees else "q(z | x) differs from NUTS",
            f"  {len(next(iter(self.shift.values())))} datapoints, {count} latent coordinates",
            f"  NUTS: {chains} chains of {draws} draws, ESS at least {ess.min():.0f}, R-hat at most {r_hat.max():.3f}, "
            f"{int(self.diverging.sum())} divergences",
            f"  means: {np.median(np.abs(shift)):.2f} sd apart at the median, at most {abs(shift[worst]):.2f} "
            f"({labels[worst]}); beyond Monte Carlo error for {self._shifted.sum()}",
            f"  standard deviations: q's over NUTS's {np.median(ratio):.2f} at the median, from {ratio[low]:.2f} "
            f"({labels[low]}) to {ratio[high]:.2f} ({labels[high]});\n  beyond Monte Carlo error q is narrower for "
            f"{self._narrower.sum()} and wider for {self._wider.sum()}",
        ]
        lines += [f"  WARNING: NUTS has not converged: {doubt}." for doubt in self.doubts]
        if self.doubts:
            lines.append(
                "  Its draws may not be from the posterior; run it for longer, or look at its chains in ArviZ."
            )
        return "\n".join(lines)

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
    def _stuck(self) -> np.ndarray:
        """Where chains have no variance, so that R-hat has no value."""
        return ~np.isfinite(_columns(self.r_hat))

    @property
    def _shifted(self) -> np.ndarray:
        return np.abs(_columns(self.shift)) > MAX_STANDARD_ERRORS * _columns(self.shift_std_error)

    @property
    def _narrower(self) -> np.ndarray:
        return 1 - _columns(self.sd_ratio) > MAX_STANDARD_ERRORS * _columns(self.sd_ratio_std_error)

    @property
    def _wider(self) -> np.ndarray:
        return _columns(self.sd_ratio) - 1 > MAX_STANDARD_ERRORS * _columns(self.sd_ratio_std_error)

    @property
    def _labels(self) -> list[str]:
        """Of the coordinates, in the order of :func:`_columns`: ``"z[3, 0]"`` is coordinate 0 of datapoint 3."""
        return [
            f"{name}[{', '.join(map(str, index))}]"
            for name, values in self.r_hat.items()
            for index in product(*map(range, values.shape))
        ]

    def __str__(self) -> str:
        return self.summary()


@evidence_function
def compare_with_nuts(
    model: Program,
    guide: Program,
    x: Any,
    *,
    num_samples: int = 1000,
    warmup_steps: int = 500,
    num_chains: int = 2,
    chunk_size: int | None = None,
    progress: Progress = True,
) -> NutsComparison:
    """Samples p(z | x) with Pyro's NUTS (Hoffman & Gelman 2014), and q(z | x) as often.

    For a few datapoints: one chain moves the latents of all of them at once, so that the step size suits the hardest.
    Latents with bounded support are transformed, as Pyro does it. Parameters are constants, and do not change. Put
    modules into evaluation mode first: with dropout there is no one posterior.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``; or, for programs of more than x, a tuple of tensors, each ``[n, ...]``; or a
            ``Dataset`` or ``DataLoader`` of what they take, which is loaded into memory, in the order of the data set.
        num_samples: Draws of each chain, at least 4. All are held in memory.
        warmup_steps: Steps of each chain before them, in which step size and mass matrix are adapted.
        num_chains: Chains, at least 2 so that R-hat can compare them, one after the other. Each starts at a draw from
            the prior.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
            That is for the guide: NUTS moves all datapoints at once.
        progress: Wraps the sequence of all steps, as ``rich.progress.track`` does; ``iter`` for silence.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: If x is empty or not accepted by the programs, the programs share no data plate, their sites do not
            match, a latent site is discrete, the model is not the same from call to call, or NUTS finds no place to
            start from.
        Interrupted: At Ctrl-C, with the result for the chains that were done, if there are two or more.
    """
    num_samples, num_chains = check_count("num_samples", num_samples, least=4), check_count("num_chains", num_chains, 2)
    warmup_steps = check_count("warmup_steps", warmup_steps)
    model, guide, x = by_row(model, guide, x)
    programs = Programs(model, guide, x, chunk_size)
    layout = programs.layout
    event_dims = _check_model(model, guide, x, layout)
    at_once = max(1, programs.chunk_size // len(x))

    def compare(chains: Sequence[Chain]) -> NutsComparison:
        nuts = {}
        for name, event_dim in event_dims.items():
            draws = torch.cat([draws[name] for draws, _ in chains])
            missing = -layout.particle_dim - (draws.ndim - event_dim)  # plates that other sites are in
            draws = draws.reshape(len(draws), *[1] * missing, *draws.shape[1:])
            nuts[name] = _by_chain(layout.by_datapoint(draws), len(chains))
        drawn = _guide_draws(guide, x, len(chains) * num_samples, at_once, layout)
        diverging = torch.zeros(len(chains), num_samples, dtype=torch.bool)
        for row, (_, divergences) in zip(diverging, chains, strict=True):
            row[divergences] = True
        return NutsComparison(
            nuts=nuts,
            guide={name: _by_chain(drawn[name], len(chains)) for name in nuts},
            **_diagnostics(nuts),
            diverging=diverging,
        )

    chains: list[Chain] = []
    try:
        for chain in _run_chains(model, x, num_samples, warmup_steps, num_chains, progress):
            chains.append(chain)
    except KeyboardInterrupt as interrupt:
        message = f"{len(chains)} of {num_chains} chains were done"
        raise Interrupted(message, compare(chains) if len(chains) > 1 else None) from interrupt
    return compare(chains)


@torch.no_grad()
def _check_model(model: Program, guide: Program, x: Tensor, layout: Layout) -> dict[str, int]:
    """Checks that NUTS can sample the model; returns the event dimensions of its latent sites, by name."""
    with pyro.validation_enabled(False):
        model_trace, _ = trace_pair(model, guide, x)
        latent = {name: site["fn"] for name, site in sample_sites(model_trace) if not site["is_observed"]}
        for name, fn in latent.items():
            if fn.support.is_discrete:
                raise ValueError(f"site {name!r} of the model is discrete; NUTS can only sample continuous latents")
        values = {name: layout.by_site(v) for name, v in _guide_draws(guide, x, 1, 1, layout).items()}
        one, other = (terms_at(model, guide, x, values, 1, layout) for _ in range(2))
    if not torch.allclose(one.log_likelihood + one.log_prior, other.log_likelihood + other.log_prior, equal_nan=True):
        raise ValueError(
            "the model has another log-density at every call, with the same latents: put its modules into evaluation "
            "mode (.eval()) if they have dropout"
        )
    return {name: fn.event_dim for name, fn in latent.items()}


def _run_chains(
    model: Program,
    x: Tensor,
    num_samples: int,
    warmup_steps: int,
    num_chains: int,
    progress: Progress,
) -> Iterator[Chain]:
    """For each chain its draws, by site ``[draws, ...]``, and the indices of those that diverged.

    Chains of this process rather than Pyro's parallel ones: those need programs that can be pickled, and seed each
    chain by its number.
    """
    steps = iter(shown(progress, range(num_chains * (warmup_steps + num_samples)), "NUTS"))
    for _ in range(num_chains):
        mcmc = MCMC(
            NUTS(Unscaled()(model), init_strategy=init_to_sample),
            num_samples=num_samples,
            warmup_steps=warmup_steps,
            hook_fn=lambda *_: next(steps, None),
            disable_progbar=True,
        )
        with gradients_enabled():
            mcmc.run(differentiable(x))
        yield mcmc.get_samples(), mcmc.diagnostics()["divergences"]["chain 0"]
    next(steps, None)  # so that the bar ends


@torch.no_grad()
def _guide_draws(guide: Program, x: Tensor, num_draws: int, at_once: int, layout: Layout) -> dict[str, Tensor]:
    """Draws from the guide, by site ``[draws, n, ...]``, so many at once."""
    parts = []
    with pyro.validation_enabled(False):
        for first in range(0, num_draws, at_once):
            program = vectorized(guide, min(at_once, num_draws - first), layout)
            trace = poutine.util.prune_subsample_sites(poutine.trace(program).get_trace(x))
            parts.append({name: layout.by_datapoint(site["value"]) for name, site in sample_sites(trace)})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _by_chain(draws: Tensor, num_chains: int) -> Tensor:
    return draws.detach().cpu().unflatten(0, (num_chains, -1))


def _relative_variance_of_sd(draws: Tensor, ess: Tensor) -> Tensor:
    """Of the standard deviation of draws ``[chains, draws, n, ...]``; 1 / (2 ess) if they are normal."""
    deviations = draws - draws.mean((0, 1))
    kurtosis = deviations.pow(4).mean((0, 1)) / deviations.square().mean((0, 1)).square()
    return (kurtosis - 1) / (4 * ess)


def _columns(sites: dict[str, Tensor]) -> np.ndarray:
    """All coordinates of sites ``[n, ...]``, in one row."""
    return torch.cat([values.flatten().double() for values in sites.values()]).numpy()


def _diagnostics(nuts: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What ArviZ says of draws ``[chains, draws, n, ...]``: by the names of the fields of the result, ``[n, ...]``."""
    arviz, _ = import_arviz()
    data = arviz_data({"posterior": {name: draws.double().numpy() for name, draws in nuts.items()}})
    with np.errstate(all="ignore"):  # R-hat is infinite or NaN where chains never moved
        found = {
            "ess": arviz.ess(data, method="mean"),
            "ess_sd": arviz.ess(data, method="sd"),
            "r_hat": arviz.rhat(data),
        }
    return {
        field: {name: torch.as_tensor(values[name].values.copy()) for name in nuts} for field, values in found.items()
    }
