"""How much is computed at once: so many (particle, datapoint) pairs, in blocks of datapoints where that is allowed."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.randomness import generators_kept
from pyro_vae.weights import Layout, Program, Terms, sample_sites, terms_of, vectorized_trace_pair

__all__ = ["choose_chunk_size", "split_rows"]


def choose_chunk_size(x: Tensor, chunk_size: int | None) -> int:
    """The number of (particle, datapoint) pairs to compute at once: the caller's, or one that suits the device of x."""
    if chunk_size is None:
        return 2**12 if x.device.type == "cpu" else 2**16
    return check_count("chunk_size", chunk_size)


@torch.no_grad()
def split_rows(model: Program, guide: Program, x: Tensor, layout: Layout, rows: int) -> tuple[Tensor, ...]:
    """Splits x ``[n, *event]`` into blocks of so many rows, if the programs allow it; else gives x as one block.

    They allow it if what they say of a row does not depend on the others. That is so for an amortized guide, and not if
    each row has parameters of its own, or with batch statistics. It is found out by running the programs on the last
    rows alone, at the values drawn with all of x.
    """
    if x.shape[0] <= rows:
        return (x,)
    with generators_kept(x.device):
        model_trace, guide_trace = vectorized_trace_pair(model, guide, x, 1, layout)
        together = terms_of(model_trace, guide_trace, layout)
        last_values = {name: _last_rows(site, layout, rows) for name, site in sample_sites(guide_trace)}
        last_model, last_guide = (poutine.condition(program, data=last_values) for program in (model, guide))
        try:
            alone = terms_of(*vectorized_trace_pair(last_model, last_guide, x[-rows:], 1, layout), layout)
        except (RuntimeError, ValueError, IndexError):
            return (x,)
    return x.split(rows) if _agree(together, alone, rows) else (x,)


def _last_rows(site: Any, layout: Layout, rows: int) -> Tensor:
    dim = site["value"].ndim - site["fn"].event_dim + layout.data_dim
    return site["value"].narrow(dim, site["value"].shape[dim] - rows, rows)


def _agree(together: Terms, alone: Terms, rows: int) -> bool:
    # Conditioned latent sites count as observed, so it is the joint density of the model that can be compared. The
    # tolerance is what float32 loses where matrices of other sizes are multiplied.
    joint, joint_alone = (terms.log_likelihood + terms.log_prior for terms in (together, alone))
    return all(
        torch.allclose(a[..., -rows:], b, rtol=1e-5, atol=1e-3)
        for a, b in ((joint, joint_alone), (together.log_posterior, alone.log_posterior))
    )
