"""Shapes given as an integer or a sequence of integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyro_vae.checks import check_count


def as_shape(name: str, sizes: int | Sequence[int], least: int = 1) -> tuple[int, ...]:
    """Returns the sizes as a tuple of at least ``least`` integers; a single integer is a shape of one dimension.

    Raises:
        ValueError: If there are too few, or one is not a positive integer; the message contains the name.
    """
    shape = tuple(sizes) if isinstance(sizes, Iterable) else (sizes,)
    if len(shape) < least:
        raise ValueError(f"{name} is {sizes!r}; expected an integer or a sequence of at least one")
    return tuple(check_count(name, size) for size in shape)
