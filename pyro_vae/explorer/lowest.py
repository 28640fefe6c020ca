"""The datapoints with the lowest log p(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vae import evidence
from pyro_vae.evidence import Evidence
from pyro_vae.system.progress import Progress

SAMPLES = 100  # of the guide for each datapoint, to find candidates
SECONDS = 60.0  # after which the candidates get no further method
CANDIDATES = 4  # for each datapoint that is shown


@dataclass(frozen=True)
class Scores:
    """log p(x) of each datapoint, in nats.

    Attributes:
        log_prob: Estimates or lower bounds, ``[n]``.
        error: The half-width of a 95% interval, ``[n]``; infinite where only a lower bound is known.
        lowest: The datapoints with the lowest log p(x), the lowest first.
        how: How they were found, in words.
    """

    log_prob: Tensor
    error: Tensor
    lowest: list[int]
    how: str


def scores(vae: Any, data: Any, n: int, count: int, progress: Progress) -> Scores:
    """Estimates log p(x) where it is lowest, and bounds it for all datapoints.

    A bound from 100 samples of the guide finds candidates: four times as many as are asked for, those with the lowest
    bounds. They are estimated for about a minute. If that is not enough, a lower bound remains.

    Args:
        vae: The VAE.
        data: Its data: a tensor, or a tuple of tensors.
        n: The number of datapoints.
        count: How many of the lowest to find.
        progress: Whether to show a progress bar; see :func:`~pyro_vae.evidence.estimate`.
    """
    count = min(count, n)
    bounds = evidence.importance(vae.model, vae.guide, data, num_samples=SAMPLES, progress=progress)
    log_prob = bounds.log_prob.clone()
    error = torch.full_like(log_prob, torch.inf)
    candidates = log_prob.argsort()[: CANDIDATES * count].sort().values
    device = (data[0] if isinstance(data, tuple) else data).device
    rows = candidates.to(device)
    chosen = tuple(each[rows] for each in data) if isinstance(data, tuple) else data[rows]
    estimated = evidence.estimate(vae.model, vae.guide, chosen, budget=SECONDS, progress=progress)
    log_prob[candidates], error[candidates] = estimated.log_prob, estimated.error
    lowest = candidates[estimated.log_prob.argsort()[:count]].tolist()
    how = (
        f"The {len(candidates)} datapoints with the lowest bound from {SAMPLES} samples of q(z | x) were estimated "
        "with evidence.estimate. The other values are lower bounds."
    )
    return Scores(log_prob, error, lowest, how)


def scores_from(result: Evidence, rows: Tensor, n: int, count: int) -> Scores:
    """Takes log p(x) from an estimate for all n datapoints, of which those in ``rows`` are shown.

    Raises:
        TypeError: If it is not an estimate.
        ValueError: If it is for another number of datapoints.
    """
    if not isinstance(result, Evidence):
        raise TypeError(f"log_prob is of type {type(result).__name__}; expected what evidence.estimate returns")
    if len(result.log_prob) != n:
        raise ValueError(f"log_prob is for {len(result.log_prob)} datapoints; x has {n}")
    log_prob, error = result.log_prob[rows], result.error[rows]
    lowest = log_prob.argsort()[:count].tolist()
    return Scores(log_prob, error, lowest, "log p(x) of all datapoints was estimated with evidence.estimate.")
