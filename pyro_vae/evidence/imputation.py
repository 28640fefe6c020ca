"""Missing values, filled in with what the model expects of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.evidence.chunks import choose_rows, particle_counts
from pyro_vae.evidence.runner import Programs, Progress, bar
from pyro_vae.processes import Processes
from pyro_vae.weights import Program, sample_sites, terms_of, vectorized_trace_pair

__all__ = ["impute"]


@torch.no_grad()
def impute(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    progress: Progress = bar,
    resume: str | Path | None = None,
    processes: Processes | None = None,
) -> Tensor:
    """Replaces every NaN of x by its mean given what was observed of its datapoint.

    The mean of p(x given z), over draws of z from the guide, with self-normalized importance weights: they make draws
    from q(z given the observed) stand for the posterior (Mattei & Frellsen 2019, section 3).

    Args:
        model: A Pyro program called as ``model(x)``, with a plate over the rows of x, observed at one site whose
            distribution accepts NaN, as ``likelihoods.Incomplete`` makes it.
        guide: A Pyro program called as ``guide(x)``, with the model's latent sites.
        x: Data, ``[n, *event]``, NaN where missing.
        num_samples: Samples for each datapoint.
        chunk_size: How many (particle, datapoint) pairs to compute at once; by default what suits programs and device.
        progress: Wraps the sequence of blocks of datapoints, as ``rich.progress.track`` does; ``iter`` for silence.
        resume: A file to keep what is done in. The same call goes on from it, to the same numbers as if it had not
            been stopped; at most the last 10 seconds are lost.
        processes: Those that share the blocks of datapoints (``pyro_vae.processes.join()``, under ``torchrun``): all of
            them call this alike, and all get the whole result, the same as one process gets.

    Returns:
        x without NaN, on its device.

    Raises:
        TypeError: If x is not a tensor, or has a dtype that the programs do not take.
        ValueError: As :func:`~pyro_vae.evidence.importance`; or if the model does not observe x at one site.
        Interrupted: At Ctrl-C, with the datapoints that were done.
    """
    num_samples = check_count("num_samples", num_samples)
    programs = Programs(model, guide, x, chunk_size)
    layout, chunk_size = programs.layout, programs.chunk_size

    def fill(block: Tensor, first: int) -> dict[str, Tensor]:
        log_total = torch.full(block.shape[:1], -torch.inf, dtype=torch.float64, device=block.device)
        mean = torch.zeros_like(block, dtype=torch.float64)
        by_row = (-1, *[1] * (block.ndim - 1))
        for count in particle_counts(num_samples, len(block), chunk_size):
            traces = vectorized_trace_pair(model, guide, block, count, layout)
            means = [site["fn"].mean for _, site in sample_sites(traces[0]) if site["is_observed"]]
            if len(means) != 1 or means[0].numel() != count * block.numel():
                shapes = [list(mean.shape) for mean in means]
                raise ValueError(f"the model observes values of shapes {shapes}; expected x, at one site")
            log_weights = terms_of(*traces, layout).log_weights.double()
            before, log_total = log_total, torch.logaddexp(log_total, log_weights.logsumexp(0))
            share = (log_weights - log_total).exp()
            drawn = layout.rows_second(means[0]).reshape(count, *block.shape).double()
            mean = mean * (before - log_total).exp().reshape(by_row) + torch.einsum("kn,kn...->n...", share, drawn)
        if not log_total.isfinite().all():
            index = first + int((~log_total.isfinite()).nonzero()[0])
            raise ValueError(f"datapoint {index} has weight zero for all of its {num_samples} samples, or one of NaN")
        return {"x": torch.where(block.isnan(), mean.to(block.dtype), block)}

    return programs.run(
        fill,
        lambda columns: columns["x"].to(x.device),
        rows=choose_rows(chunk_size, num_samples),
        settings={"function": "impute", "num_samples": num_samples},
        progress=progress,
        resume=resume,
        processes=processes,
    )
