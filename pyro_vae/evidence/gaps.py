"""Where the slack of the ELBO is: in the family of q, or in its amortization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.importance_sampling import weigh
from pyro_vae.evidence.local_guide import LocalGuide
from pyro_vae.evidence.proposals import Proposal
from pyro_vae.evidence.result import MAX_PARETO_K, std_error_of_mean
from pyro_vae.evidence.runner import Programs, Progress, bar
from pyro_vae.evidence.running_weights import RunningWeights
from pyro_vae.processes import Processes
from pyro_vae.weights import Program, terms

__all__ = ["InferenceGap", "inference_gap"]


@dataclass(frozen=True)
class InferenceGap:
    """log p(x) - ELBO in its two parts, in nats, for n datapoints (Cremer et al. 2018, equation 6).

    Attributes:
        elbo: The ELBO of the guide, ``[n]``.
        best_elbo: The ELBO with the best q of the guide's family for each datapoint by itself, ``[n]``.
        log_prob: log p(x), ``[n]``.
        elbo_std_error: The Monte Carlo standard error of ``elbo``, ``[n]``.
        best_elbo_std_error: That of ``best_elbo``, ``[n]``.
        log_prob_std_error: That of ``log_prob``, ``[n]``; zero if it was given.
        pareto_k: The k-hat of ``log_prob``, ``[n]``; zero if it was given.
    """

    elbo: Tensor
    best_elbo: Tensor
    log_prob: Tensor
    elbo_std_error: Tensor
    best_elbo_std_error: Tensor
    log_prob_std_error: Tensor
    pareto_k: Tensor

    @property
    def approximation(self) -> Tensor:
        """What the family of q loses, ``[n]``: KL(q* || p(z given x)) of the best q* in it."""
        return self.log_prob - self.best_elbo

    @property
    def amortization(self) -> Tensor:
        """What is lost by q being the output of a network instead of the best for each datapoint, ``[n]``."""
        return self.best_elbo - self.elbo

    @property
    def total(self) -> Tensor:
        """The inference gap, ``[n]``: KL(q || p(z given x))."""
        return self.log_prob - self.elbo

    def summary(self) -> str:
        """The means over the datapoints, with Monte Carlo standard errors."""
        elbo, best, log_prob = (
            std_error_of_mean(error)
            for error in (self.elbo_std_error, self.best_elbo_std_error, self.log_prob_std_error)
        )
        rows = (
            ("log p(x)", self.log_prob, log_prob),
            ("ELBO of the best q for each datapoint", self.best_elbo, best),
            ("ELBO", self.elbo, elbo),
            ("approximation gap (the family of q)", self.approximation, math.hypot(log_prob, best)),
            ("amortization gap (its network)", self.amortization, math.hypot(best, elbo)),
            ("inference gap", self.total, math.hypot(log_prob, elbo)),
        )
        lines = [f"{name:<40}{value.mean().item():10.3f} +- {error:.3f}" for name, value, error in rows]
        doubtful = (self.pareto_k > MAX_PARETO_K).double().mean().item()
        if doubtful:
            lines.append(
                f"WARNING: k-hat is above 0.7 for {doubtful:.1%} of the datapoints: log p(x), and with it the\n"
                "approximation gap, is probably too low. Choose another proposal, or pass log_prob=,\n"
                "from evidence.annealed."
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()


def inference_gap(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    log_prob: Tensor | None = None,
    proposal: Proposal = terms,
    num_samples: int = 1000,
    num_steps: int = 500,
    num_particles: int = 16,
    lr: float = 0.02,
    chunk_size: int | None = None,
    progress: Progress = bar,
    resume: str | Path | None = None,
    processes: Processes | None = None,
) -> InferenceGap:
    """Splits log p(x) - ELBO into approximation and amortization gap (Cremer et al. 2018).

    The parameters of the distributions that the guide gives a datapoint are optimized for it alone, from where the
    guide puts them (with Adam, its learning rate falling to 0), which gives the best ELBO within the guide's family.
    Both ELBOs, and log p(x) by importance sampling from the best q, are then estimated with fresh samples.

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites, each a reparameterized
            distribution with parameters that do not depend on other latents.
        x: Data, ``[n, *event]``.
        log_prob: log p(x) in nats, ``[n]``, if there is a better estimate than by importance sampling.
        proposal: How the samples for log p(x) are drawn from the best q, such as ``evidence.widened(1.5)``.
        num_samples: Samples for each datapoint that each ELBO and log p(x) are estimated with, at least 2.
        num_steps: Steps of the optimization.
        num_particles: Particles for each datapoint in a step.
        lr: The learning rate at the beginning.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Wraps the sequence of blocks of datapoints, as ``rich.progress.track`` does; ``iter`` for silence.
        resume: A file to keep what is done in. The same call goes on from it, to the same numbers as if it had not
            been stopped; at most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Raises:
        TypeError: If x is not a tensor, or has a dtype that the programs do not take.
        ValueError: As :func:`~pyro_vae.evidence.importance`; or if q at a site cannot be optimized for each datapoint.
        Interrupted: At Ctrl-C, with the result for the datapoints that were done.
    """
    settings = {
        "function": "inference_gap",
        "log_prob": log_prob,
        "num_samples": check_count("num_samples", num_samples, least=2),
        "num_steps": check_count("num_steps", num_steps),
        "num_particles": check_count("num_particles", num_particles),
        "lr": float(lr),
    }
    programs = Programs(model, guide, x, chunk_size)
    layout = programs.layout
    if log_prob is not None and log_prob.shape != x.shape[:1]:
        raise ValueError(f"log_prob has shape {list(log_prob.shape)}; expected [{len(x)}], one for each datapoint")

    def split(block: Tensor, first: int) -> dict[str, Tensor]:
        def weights(guide: Program, proposal: Proposal = terms) -> RunningWeights:
            def log_weights(block: Tensor, count: int) -> Tensor:
                return proposal(model, guide, block, count, layout).log_weights

            return weigh(log_weights, block, num_samples, programs.chunk_size)

        local = LocalGuide(guide, block)
        local.fit(model, block, layout, num_steps=num_steps, num_particles=num_particles, lr=lr)
        amortized, best = weights(guide), weights(local)
        if log_prob is None:
            columns = (best if proposal is terms else weights(local, proposal)).columns(first)
            known, std_error, k = columns["log_prob"], columns["std_error"], columns["pareto_k"]
        else:
            known = log_prob[first : first + len(block)].double()
            std_error = k = torch.zeros_like(known)
        return {
            "elbo": amortized.mean_log,
            "best_elbo": best.mean_log,
            "log_prob": known,
            "elbo_std_error": amortized.mean_log_std_error,
            "best_elbo_std_error": best.mean_log_std_error,
            "log_prob_std_error": std_error,
            "pareto_k": k,
        }

    return programs.run(
        split,
        lambda columns: InferenceGap(**columns),
        rows=max(1, programs.chunk_size // num_particles),
        settings=settings,
        proposal=proposal,
        progress=progress,
        resume=resume,
        processes=processes,
    )
