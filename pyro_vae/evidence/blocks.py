"""How much is computed at once: so many (particle, datapoint) pairs, in blocks of datapoints where that is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_vae.checks import check_count
from pyro_vae.randomness import generators_kept
from pyro_vae.weights import Layout, Program, Terms, terms, terms_of, vectorized_trace_pair

__all__ = ["choose_chunk_size", "choose_rows", "particle_counts", "split_rows"]

# The largest tensor of a chunk stays in the cache of a CPU; with larger ones the time goes into moving memory.
CPU_BYTES_AT_ONCE = 2**24
# A GPU is busy with so many pairs; more would only take more memory.
MOST_AT_ONCE = 2**16
# An encoder is run for each chunk: with so many particles of a datapoint at once, that costs little.
PARTICLES_AT_ONCE = 128


@torch.no_grad()
def choose_chunk_size(model: Program, guide: Program, x: Tensor, layout: Layout, chunk_size: int | None) -> int:
    """The number of (particle, datapoint) pairs to compute at once: the caller's, or what suits programs and device.

    On a CPU the largest tensor of a chunk is to stay in its cache; on a GPU all that a chunk allocates is to fit into a
    quarter of the memory that is free. What a pair needs is measured on a small run; it is rounded to a power of two,
    so that the same seed draws the same particles again.
    """
    if chunk_size is not None:
        return check_count("chunk_size", chunk_size)
    num_particles = -(-64 // len(x))
    with generators_kept(x.device), pyro.validation_enabled(False), _Allocations() as allocations:
        terms(model, guide, x, num_particles, layout)
    pairs = num_particles * len(x)
    if x.device.type == "cuda":
        at_once = torch.cuda.mem_get_info(x.device)[0] // 4 * pairs // max(1, allocations.total)
    else:
        _keep_freed_memory()
        at_once = CPU_BYTES_AT_ONCE * pairs // max(1, allocations.largest)
    return 2 ** (min(max(1, at_once), MOST_AT_ONCE).bit_length() - 1)


class _Allocations(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations make; views and results in place are none."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in known:
                size = leaf.numel() * leaf.element_size()
                self.largest, self.total = max(self.largest, size), self.total + size
        return out


def _keep_freed_memory() -> None:
    # The C library of Linux gives freed memory back to the system beyond a threshold, and to get it again page by page
    # costs as much as the arithmetic. The threshold follows the largest block it has seen freed, up to 32 MiB. (This
    # block is never written to, so it takes no memory.)
    torch.empty(2**25 - 2**16, dtype=torch.uint8)


def choose_rows(chunk_size: int, num_samples: int) -> int:
    """The number of datapoints in a block: few, with many particles each."""
    return max(1, chunk_size // min(num_samples, PARTICLES_AT_ONCE))


def particle_counts(num_samples: int, rows: int, chunk_size: int) -> Iterator[int]:
    """The numbers of particles to draw one after the other, for so many rows at once: as many as fit into a chunk."""
    at_once = max(1, chunk_size // rows)
    for first in range(0, num_samples, at_once):
        yield min(at_once, num_samples - first)


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
        last_values = {
            name: layout.rows_back(layout.rows_second(value)[:, -rows:]) for name, value in together.latents.items()
        }
        last_model, last_guide = (poutine.condition(program, data=last_values) for program in (model, guide))
        try:
            alone = terms_of(*vectorized_trace_pair(last_model, last_guide, x[-rows:], 1, layout), layout)
        except (RuntimeError, ValueError, IndexError):
            return (x,)
    return x.split(rows) if _agree(together, alone, rows) else (x,)


def _agree(together: Terms, alone: Terms, rows: int) -> bool:
    # Conditioned latent sites count as observed, so it is the joint density of the model that can be compared. The
    # tolerance is what float32 loses where matrices of other sizes are multiplied.
    joint, joint_alone = (terms.log_likelihood + terms.log_prior for terms in (together, alone))
    return all(
        torch.allclose(a[..., -rows:], b, rtol=1e-5, atol=1e-3)
        for a, b in ((joint, joint_alone), (together.log_posterior, alone.log_posterior))
    )
