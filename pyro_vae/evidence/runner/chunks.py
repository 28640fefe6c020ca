"""How much is computed at once: so many (particle, datapoint) pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vae.system.private_apis import TorchDispatchMode
from pyro_vae.system.trees import leaves_of

__all__ = ["Allocations", "choose_rows", "fitting_chunk_size", "particle_counts"]

# The largest tensor of a chunk stays in the cache of a CPU; with larger ones the time goes into moving memory.
CPU_BYTES_AT_ONCE = 2**24
# A GPU is busy with so many pairs; more would only take more memory.
MOST_AT_ONCE = 2**16
# An encoder is run for each chunk: with so many particles of a datapoint at once, that costs little.
PARTICLES_AT_ONCE = 128


class Allocations(TorchDispatchMode):
    """Measures the tensors that operations make of n datapoints; views and results in place are none.

    A tensor counts if one of its dimensions is n: others, as those made of parameters alone, do not grow with the data.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.largest = self.total = 0  #: In bytes.

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [leaf for leaf in leaves_of(out) if isinstance(leaf, Tensor) and self.n in leaf.shape]
        if made:
            inputs = (leaf for leaf in leaves_of((args, kwargs)) if isinstance(leaf, Tensor))
            known = {leaf.untyped_storage().data_ptr() for leaf in inputs}
            for leaf in made:
                if leaf.untyped_storage().data_ptr() not in known:
                    size = leaf.numel() * leaf.element_size()
                    self.largest, self.total = max(self.largest, size), self.total + size
        return out


def fitting_chunk_size(allocations: Allocations, device: torch.device) -> int:
    """The number of pairs that suits the programs and the device, from what they allocate for one particle each.

    On a CPU the largest tensor of a chunk is to stay in its cache; on a GPU all that a chunk allocates is to fit into a
    quarter of the memory that is free. It is rounded to a power of two, so that the same seed draws the same particles
    again.
    """
    if device.type == "cuda":
        at_once = torch.cuda.mem_get_info(device)[0] // 4 * allocations.n // max(1, allocations.total)
    else:
        _keep_freed_memory()
        at_once = CPU_BYTES_AT_ONCE * allocations.n // max(1, allocations.largest)
    return 2 ** (min(max(1, at_once), MOST_AT_ONCE).bit_length() - 1)


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
