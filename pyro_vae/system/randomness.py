"""The states of torch's random generators: to save, restore and seed them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def generators_kept(device: torch.device) -> Iterator[None]:
    """Restores the states of the generators of the CPU and of the device on exit."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Gives the generators of the CPU and of this device a seed, and restores their states afterwards."""
    with generators_kept(device):
        reseed(seed, device)
        yield


def reseed(seed: int, device: torch.device) -> None:
    """Seeds the generators of the CPU and of the device, and no other generators."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def get_generators(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators of the CPU and of the device."""
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def set_generators(states: dict[str, Tensor], device: torch.device) -> None:
    """Restores the states that :func:`get_generators` returned."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
