"""Where the slack of the ELBO is: in the family of q, or in its amortization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_positive
from pyro_vae.evidence.diagnostics.local_fit import fit_until_done
from pyro_vae.evidence.diagnostics.local_guide import LocalGuide
from pyro_vae.evidence.estimators.importance_sampling import weigh
from pyro_vae.evidence.ladder.ladder import Ladder, Settings
from pyro_vae.evidence.results.evidence import Evidence, Z, std_error_of_mean
from pyro_vae.evidence.results.running_weights import RunningWeights
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.unconstrained.log_joint import FastDensities
from pyro_vae.processes import Processes
from pyro_vae.programs.inputs import by_row
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program, terms

__all__ = ["InferenceGap", "inference_gap"]

MAX_TEMPERATURES = 512  # as for `estimate`


@dataclass(frozen=True)
class InferenceGap:
    """log p(x) - ELBO in its two parts, in nats, for n datapoints (Cremer et al. 2018, equation 6).

    Attributes:
        elbo: The ELBO of the guide, ``[n]``.
        best_elbo: The ELBO with the best q that was found in the guide's family for each datapoint by itself, ``[n]``.
        log_prob: log p(x), ``[n]``.
        elbo_std_error: The Monte Carlo standard error of ``elbo``, ``[n]``.
        best_elbo_std_error: That of ``best_elbo``, ``[n]``.
        log_prob_error: The half-width of a 95% interval for log p(x), ``[n]``, bias included; infinite where
            ``log_prob`` is only a lower bound, and zero if log p(x) was given.
        log_prob_bias: The part of it that does not average out over datapoints, ``[n]``.
        converged: Whether the ELBO of the best q had stopped improving, ``[n]``.
    """

    elbo: Tensor
    best_elbo: Tensor
    log_prob: Tensor
    elbo_std_error: Tensor
    best_elbo_std_error: Tensor
    log_prob_error: Tensor
    log_prob_bias: Tensor
    converged: Tensor

    @property
    def settled(self) -> Tensor:
        """Whether log p(x) is known, ``[n]``, rather than only a lower bound."""
        return self.log_prob_error.isfinite()

    @property
    def approximation(self) -> Tensor:
        """What the family of q loses, ``[n]``: KL(q* || p(z | x)) of the best q* in it.

        NaN where the best q was not found.
        """
        return (self.log_prob - self.best_elbo).masked_fill(~self.converged, torch.nan)

    @property
    def amortization(self) -> Tensor:
        """What is lost by q being the output of a network instead of the best for each datapoint, ``[n]``.

        NaN where the best q was not found.
        """
        return (self.best_elbo - self.elbo).masked_fill(~self.converged, torch.nan)

    @property
    def total(self) -> Tensor:
        """The inference gap, ``[n]``: KL(q || p(z | x))."""
        return self.log_prob - self.elbo

    def summary(self) -> str:
        """The means over the datapoints, with 95% errors, the bias of log p(x) included."""
        n, found = len(self.elbo), int(self.converged.sum())
        every, converged = torch.ones_like(self.converged), self.converged
        elbo, best, log_prob = self.elbo_std_error, self.best_elbo_std_error, self.log_prob_error
        rows: list[tuple[str, Tensor, Tensor, list[Tensor], bool]] = [
            ("log p(x)", self.log_prob, every, [], True),
            ("ELBO of the best q for each datapoint", self.best_elbo, every, [best], False),
            ("ELBO", self.elbo, every, [elbo], False),
            ("approximation gap (the family of q)", self.approximation, converged, [best], True),
            ("amortization gap (its network)", self.amortization, converged, [best, elbo], False),
            ("inference gap", self.total, every, [elbo], True),
        ]
        lines = []
        for name, value, chosen, std_errors, has_log_prob in rows:
            if not chosen.any():
                lines.append(f"{name:<40}  not known")
                continue
            mean = value[chosen].mean().item()
            noise = Z * math.hypot(*(std_error_of_mean(error[chosen]) for error in std_errors))
            if has_log_prob and not self.settled[chosen].all():
                lines.append(f"{name:<40}at least {mean:.3f}")
                continue
            bias = 0.0
            if has_log_prob:
                bias = self.log_prob_bias[chosen].mean().item()
                noise = math.hypot(noise, std_error_of_mean((log_prob - self.log_prob_bias)[chosen]))
            lines.append(f"{name:<40}{mean:10.3f} +- {bias + noise:.3f}")
        lines.append("means in nats, with 95% errors")
        if found < n:
            lines.append(
                f"WARNING: for {n - found} of {n} datapoints the ELBO of the best q was still rising: what is lost by\n"
                "the family of q is not known there, and both parts of the gap are means over the others. Take more\n"
                "rounds, more steps, or a larger learning rate."
            )
        unknown = n - int(self.settled.sum())
        if unknown:
            lines.append(
                f"WARNING: for {unknown} of {n} datapoints log p(x) is only a lower bound, and so are the\n"
                "approximation gap and the inference gap."
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


@evidence_function
def inference_gap(
    model: Program,
    guide: Program,
    x: Any,
    *,
    log_prob: Tensor | Evidence | None = None,
    tolerance: float = 0.05,
    num_samples: int = 1000,
    num_steps: int = 500,
    num_particles: int = 16,
    lr: float = 0.02,
    max_rounds: int = 10,
    chunk_size: int | None = None,
    progress: Progress = True,
    keep: str | Path | None = None,
    processes: Processes | None = None,
) -> InferenceGap:
    """Splits log p(x) - ELBO into approximation and amortization gap (Cremer et al. 2018).

    The parameters of the distributions that the guide gives a datapoint are optimized for it alone, from where the
    guide puts them (with Adam, its learning rate falling to 0), in rounds until the ELBO stops improving. That gives
    the best ELBO within the guide's family. Both ELBOs are then estimated with fresh samples, and log p(x) as by
    :func:`~pyro_vae.evidence.estimate`.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites, each a reparameterized
            distribution with parameters that do not depend on other latents.
        x: Data, ``[n, *event]``; or, for programs of more than x, a tuple of tensors, each ``[n, ...]``; or a
            ``Dataset`` or ``DataLoader`` of what they take, which is loaded into memory, in the order of the data set.
        log_prob: log p(x), if it is known already: an ``Evidence`` of these datapoints, which has its errors, or exact
            values in nats, ``[n]``.
        tolerance: What the bias of log p(x) and the noise of its mean are to stay below, in nats, if it is estimated.
        num_samples: Samples for each datapoint that each ELBO is estimated with, at least 2.
        num_steps: Steps of a round of the optimization. The learning rate of each round begins twice as high as that
            of the one before.
        num_particles: Particles for each datapoint in a step.
        lr: The learning rate at the beginning.
        max_rounds: The most rounds. A datapoint is done after a round that has gained less than 0.01 nats, which its
            best ELBO may be too low by.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Whether to show a progress bar; or a function that wraps the blocks, as ``tqdm.tqdm`` does.
        keep: A file for what is done. If it is there, the call goes on from it, to the same numbers as if it had not
            been stopped. At most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: As :func:`~pyro_vae.evidence.estimate`; or if q at a site cannot be optimized for each datapoint.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    check_positive("tolerance", tolerance)
    num_samples = check_count("num_samples", num_samples, least=2)
    optimization = {
        "num_steps": check_count("num_steps", num_steps),
        "num_particles": check_count("num_particles", num_particles),
        "lr": float(lr),
        "max_rounds": check_count("max_rounds", max_rounds),
    }
    model, guide, x = by_row(model, guide, x)
    programs = Programs(model, guide, x, chunk_size)
    layout = programs.layout
    given, fast = _given(log_prob, len(x)), FastDensities()

    def split(block: Tensor, first: int) -> dict[str, Tensor]:
        def weights(guide: Program) -> RunningWeights:
            def log_weights(block: Tensor, count: int) -> Tensor:
                return terms(model, guide, block, count, layout).log_weights

            return weigh(log_weights, block, num_samples, programs.chunk_size)

        local = LocalGuide(guide, block)
        converged = fit_until_done(local, model, block, layout, chunk_size=programs.chunk_size, **optimization)
        amortized, best = weights(guide), weights(local)
        if given is None:
            settings = Settings(float(tolerance), MAX_TEMPERATURES, len(x))
            known = _estimated(Ladder(programs, block, settings, fast=fast), first)
        else:
            known = {name: value[first : first + len(block)] for name, value in given.items()}
        return {
            "elbo": amortized.mean_log,
            "best_elbo": best.mean_log,
            "elbo_std_error": amortized.mean_log_std_error,
            "best_elbo_std_error": best.mean_log_std_error,
            "converged": converged,
            **known,
        }

    return programs.run(
        split,
        lambda columns: InferenceGap(**columns),
        rows=max(1, programs.chunk_size // num_particles),
        settings={
            "function": "inference_gap",
            "tolerance": float(tolerance),
            "num_samples": num_samples,
            **optimization,
            **(given or {"log_prob": None}),
        },
        progress=progress,
        keep=keep,
        processes=processes,
    )


def _given(log_prob: Any, n: int) -> dict[str, Tensor] | None:
    """log p(x) and its errors, if they were given, by the names of the fields of ``InferenceGap``."""
    if log_prob is None:
        return None
    values = log_prob.log_prob if isinstance(log_prob, Evidence) else log_prob
    if values.shape != (n,):
        raise ValueError(f"log_prob has shape {list(values.shape)}; expected [{n}], one for each datapoint")
    values = values.detach().double().cpu()
    if isinstance(log_prob, Evidence):
        return {"log_prob": values, "log_prob_error": log_prob.error, "log_prob_bias": log_prob.bias}
    exact = torch.zeros_like(values)
    return {"log_prob": values, "log_prob_error": exact, "log_prob_bias": exact}


def _estimated(ladder: Ladder, first: int) -> dict[str, Tensor]:
    """The same by the methods of :func:`~pyro_vae.evidence.estimate`."""
    columns = ladder.climb()
    found = columns["log_prob"].isfinite() if "log_prob" in columns else torch.zeros(len(ladder.x), dtype=torch.bool)
    if not found.all():
        index = first + int((~found).nonzero()[0])
        raise ValueError(f"datapoint {index} has no weight that is finite and positive, by any method")
    return {"log_prob": columns["log_prob"], "log_prob_error": columns["error"], "log_prob_bias": columns["bias"]}
