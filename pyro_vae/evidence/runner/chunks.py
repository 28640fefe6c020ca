"""How many (particle, datapoint) pairs to compute at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vae.system.memory import keep_freed_memory
from pyro_vae.system.private_apis import TorchDispatchMode
from pyro_vae.system.trees import leaves_of

CPU_BYTES_AT_ONCE = 2**24  # of the largest tensor of a chunk: it stays in the cache
MOST_AT_ONCE = 2**16  # pairs, which keep a GPU busy; more would only take more memory
PARTICLES_AT_ONCE = 128  # of a datapoint: the encoder runs once for each chunk, which is then cheap


class Allocations(TorchDispatchMode):
    """Measures the tensors that operations allocate for n datapoints, without views and in-place results.

    A tensor counts if one of its dimensions is n. Others, such as those made of parameters, do not grow with the data.
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
    """The number of pairs that suits programs and device, from what they allocate for one particle of each datapoint.

    On a CPU, the largest tensor of a chunk should stay in the cache. On a GPU, all tensors of a chunk should fit into a
    quarter of the free memory. The number is a power of two, so that the same seed draws the same particles again.
    """
    if device.type == "cuda":
        at_once = torch.cuda.mem_get_info(device)[0] // 4 * allocations.n // max(1, allocations.total)
    else:
        keep_freed_memory()
        at_once = CPU_BYTES_AT_ONCE * allocations.n // max(1, allocations.largest)
    return 2 ** (min(max(1, at_once), MOST_AT_ONCE).bit_length() - 1)


def choose_rows(chunk_size: int, num_samples: int) -> int:
    """The number of datapoints in a block: few, with many particles each."""
    return max(1, chunk_size // min(num_samples, PARTICLES_AT_ONCE))


def particle_counts(num_samples: int, rows: int, chunk_size: int) -> Iterator[int]:
    """The numbers of particles to draw one after the other for these rows: each time as many as fit into a chunk."""
    at_once = max(1, chunk_size // rows)
    for first in range(0, num_samples, at_once):
        yield min(at_once, num_samples - first)
