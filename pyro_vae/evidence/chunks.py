"""How much is computed at once: so many (particle, datapoint) pairs."""

from __future__ import annotations

from torch import Tensor

from pyro_vae.checks import check_count

__all__ = ["choose_chunk_size"]


def choose_chunk_size(x: Tensor, chunk_size: int | None) -> int:
    """The number of (particle, datapoint) pairs to compute at once: the caller's, or one that suits the device of x."""
    if chunk_size is None:
        return 2**12 if x.device.type == "cpu" else 2**16
    return check_count("chunk_size", chunk_size)
