"""The states of torch's random generators: to save, restore and seed them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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
    """Restores the states that :func:`get_generators` has returned in this process."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def load_generators(states: Mapping[str, Any], device: torch.device) -> None:
    """Restores states that :func:`get_generators` has returned in any process, as they were found in a file.

    Raises:
        Exception: If one is invalid; then no generator changes.
    """
    now = get_generators(device)
    found = {name: states[name] for name in now if name == "cpu" or name in states}
    for name, state in found.items():
        if not isinstance(state, Tensor) or (state.shape, state.dtype) != (now[name].shape, now[name].dtype):
            raise ValueError(f"the state of the generator ({name}) is not a tensor of {len(now[name])} bytes")
    _check_mersenne_twister(found["cpu"])
    if "cuda" in found:  # torch refuses some states of it, so it comes first
        torch.cuda.set_rng_state(found["cuda"], device)
    torch.set_rng_state(found["cpu"])


# The state of the generator of the CPU, a Mersenne Twister (Matsumoto and Nishimura 1998), as torch writes it (2.7 to
# 2.15): the seed; how many of the 624 words are left; whether there was a seed; which word is next; the words, of 32
# bits each; three numbers of normal draws and whether they are used; one more such number and whether it is used.
_WORDS = 624
_MERSENNE_TWISTER = struct.Struct(f"=QiiQ{_WORDS}Q3di4xfB3x")


def _check_mersenne_twister(state: Tensor) -> None:
    """Checks what torch does not: it looks at each field alone, and would read words past the last one.

    Raises:
        ValueError: If no generator can have this state.
    """
    if len(state) != _MERSENNE_TWISTER.size:  # of a version to come
        return
    _, left, seeded, place, *rest = _MERSENNE_TWISTER.unpack(state.numpy().tobytes())
    words, normals = rest[:_WORDS], rest[_WORDS:]
    is_new = (left, place) == (1, 0)  # the first draw makes the words
    is_there = is_new or (1 <= left <= _WORDS and left + place == _WORDS + 1)
    are_words = max(words) < 2**32 and any(words)  # of nothing but zeros it makes zeros for ever
    if not (seeded == 1 and is_there and are_words and all(map(math.isfinite, normals))):
        raise ValueError("the state of the generator (cpu) is none that it can have")
