"""The loss on validation data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyro
import torch
from torch import nn

from pyro_vae.processes import Processes
from pyro_vae.system.randomness import seeded
from pyro_vae.system.values import evaluation_mode
from pyro_vae.training.scales import scale_of
from pyro_vae.training.sources import Batch
from pyro_vae.weights import sample_sites, trace_pair


@torch.no_grad()
def validate(
    vae: nn.Module,
    programs: tuple[Callable[..., Any], Callable[..., Any]],
    batches: Iterable[Batch | None],
    device: torch.device,
    processes: Processes,
) -> dict[str, float]:
    """The negative ELBO, in nats per datapoint, and its two terms (Alemi et al. 2018).

    There is one draw of the latents for each datapoint, from the same seed at every call. The VAE is in evaluation mode
    during the call.

    Returns:
        ``loss``, the sum of ``rate`` (log q(z | x) - log p(z)) and ``distortion`` (-log p(x | z)).
    """
    rate = distortion = rows = 0.0
    with evaluation_mode(vae), seeded(processes.rank, device), pyro.validation_enabled(False):
        previous: Batch | None = None
        for batch in batches:
            if (previous := batch or previous) is not None:  # if parameters are spread, all processes must compute
                part = _terms(programs, previous)
            if batch is not None:
                rate, distortion, rows = rate + part[0], distortion + part[1], rows + batch.rows
    rate, distortion, rows = processes.sum([], rate, distortion, rows)
    return {"loss": (rate + distortion) / rows, "rate": rate / rows, "distortion": distortion / rows}


def _terms(programs: tuple[Callable[..., Any], Callable[..., Any]], batch: Batch) -> tuple[float, float]:
    """Rate and distortion, summed over the batch, without the scale of the programs."""
    model, guide = programs
    args, kwargs = batch.arguments
    model_trace, guide_trace = trace_pair(model, guide, *args, **kwargs)
    model_trace.compute_log_prob()
    nodes: dict[str, Any] = dict(model_trace.nodes)
    observed = sum(nodes[name]["log_prob_sum"].item() for name in model_trace.observation_nodes)
    log_posterior, log_joint = (torch.as_tensor(trace.log_prob_sum()).item() for trace in (guide_trace, model_trace))
    sites = [site for trace in (model_trace, guide_trace) for _, site in sample_sites(trace)]
    scale = scale_of([(site["cond_indep_stack"], site["scale"]) for site in sites], batch.rows)
    share = batch.rows / scale.datapoints
    return (log_posterior - (log_joint - observed)) * share, -observed * share
