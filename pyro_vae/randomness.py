"""Random draws that leave no trace in torch's generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["generators_kept", "reseed"]


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Restores the generators of the CPU and of the device on leaving."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def reseed(seed: int, device: torch.device) -> None:
    """Seeds the generators of the CPU and of the device, and no others."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
