"""log p(x) - ELBO, split into the loss by the family of q and the loss by its amortization."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count, check_positive
from pyro_vae.evidence.diagnostics.gaps.local_fit import fit_until_done
from pyro_vae.evidence.diagnostics.gaps.local_guide import LocalGuide
from pyro_vae.evidence.diagnostics.gaps.result import InferenceGap
from pyro_vae.evidence.ladder.ladder import Ladder, Settings
from pyro_vae.evidence.results.evidence import Evidence
from pyro_vae.evidence.results.running_weights import weigh
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.runner.function import evidence_function
from pyro_vae.evidence.unconstrained.log_joint import FastDensities
from pyro_vae.processes import Processes
from pyro_vae.system.progress import Progress
from pyro_vae.weights import Program, terms

MAX_TEMPERATURES = 512  # as for `estimate`
LOG_PROB = {"log_prob": "log_prob", "log_prob_error": "error", "log_prob_bias": "bias"}  # what `Evidence` calls them


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
    """Splits log p(x) - ELBO into approximation gap and amortization gap (Cremer et al. 2018).

    For each datapoint by itself, the parameters of the guide's distributions are optimized, starting from the guide
    (with Adam, its learning rate falling to 0), in rounds until the ELBO stops rising. This gives the best ELBO within
    the guide's family. Both ELBOs are then estimated with fresh samples, and log p(x) as by
    :func:`~pyro_vae.evidence.estimate`.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites, each a reparameterized
            distribution with parameters that do not depend on other latents. Of a flow of this library the outputs of
            its network are optimized for each datapoint, of a flow of zuko its context; the weights of the flow are
            part of the family.
        x: Data, as for :func:`~pyro_vae.evidence.estimate`.
        log_prob: log p(x), if it is known: an ``Evidence`` of these datapoints, with its errors, or exact values in
            nats, ``[n]``.
        tolerance: If log p(x) is estimated: the limit for its bias and for the noise of its mean, in nats.
        num_samples: Samples for each datapoint in the estimate of each ELBO, at least 2.
        num_steps: Steps of a round of the optimization. Each round starts with twice the learning rate of the round
            before.
        num_particles: Particles for each datapoint in a step.
        lr: The initial learning rate.
        max_rounds: The largest number of rounds. A datapoint is done after a round that gains less than 0.01 nats; its
            best ELBO may be too low by so much.
        chunk_size, progress, keep, processes: As for :func:`~pyro_vae.evidence.estimate`.

    Raises:
        TypeError: If x is none of these, or has a dtype that the programs do not take.
        ValueError: As :func:`~pyro_vae.evidence.estimate`; or if q at a site cannot be optimized for each datapoint.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.

    Example:
        >>> gap = evidence.inference_gap(vae.model, vae.guide, x[:2], num_steps=50, max_rounds=1, progress=False)
        >>> bool((gap.best_elbo > gap.elbo).all())
        True
    """
    check_positive("tolerance", tolerance)
    num_samples = check_count("num_samples", num_samples, least=2)
    optimization: dict[str, Any] = {
        "num_steps": check_count("num_steps", num_steps),
        "num_particles": check_count("num_particles", num_particles),
        "lr": float(lr),
        "max_rounds": check_count("max_rounds", max_rounds),
    }
    programs = Programs(model, guide, x, chunk_size, progress, keep, processes)
    n = len(programs.x)
    given, fast = _given(log_prob, n), FastDensities()

    def split(block: Tensor, first: int) -> dict[str, Tensor]:
        local = LocalGuide(programs, block)
        converged = fit_until_done(local, **optimization)
        of_guide = partial(programs.log_weights, terms)
        amortized, best = (
            weigh(weights, block, num_samples, programs.chunk_size) for weights in (of_guide, local.log_weights)
        )
        if given is None:
            settings = Settings(float(tolerance), MAX_TEMPERATURES, n)
            columns = Ladder(programs, block, settings, fast=fast).estimates(range(first, first + len(block)))
            known = {name: columns[field] for name, field in LOG_PROB.items()}
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
    )


def _given(log_prob: Any, n: int) -> dict[str, Tensor] | None:
    """The given log p(x) and its errors, by the names of the fields of ``InferenceGap``."""
    if log_prob is None:
        return None
    values = log_prob.log_prob if isinstance(log_prob, Evidence) else log_prob
    if values.shape != (n,):
        raise ValueError(f"log_prob has shape {list(values.shape)}; expected [{n}], one for each datapoint")
    values = values.detach().double().cpu()
    exact = torch.zeros_like(values)
    error, bias = (log_prob.error, log_prob.bias) if isinstance(log_prob, Evidence) else (exact, exact)
    return {"log_prob": values, "log_prob_error": error, "log_prob_bias": bias}
