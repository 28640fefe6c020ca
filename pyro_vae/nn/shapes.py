"""Shapes given as an integer or a sequence of integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyro_vae.checks import check_count

IMAGE = ("an image", ("channels", "height", "width"))
SERIES = ("a series", ("steps", "features"))


def as_shape(name: str, sizes: int | Sequence[int], least: int = 1) -> tuple[int, ...]:
    """Returns the sizes as a tuple of at least ``least`` integers; a single integer is a shape of one dimension.

    Raises:
        ValueError: If there are too few, or one is not a positive integer; the message contains the name.
    """
    shape = tuple(sizes) if isinstance(sizes, Iterable) else (sizes,)
    if len(shape) < least:
        raise ValueError(f"{name} is {sizes!r}; expected an integer or a sequence of at least one")
    return tuple(check_count(name, size) for size in shape)


def event_shape(
    name: str, sizes: Sequence[int], event: tuple[str, Sequence[str]], *, parameters: bool = False
) -> tuple[int, ...]:
    """Returns the sizes as the shape of an event.

    Args:
        name: The name of the argument, for messages.
        sizes: The sizes.
        event: What it is, and the names of its dimensions.
        parameters: Whether a number of parameters for each value may follow.

    Raises:
        ValueError: If they are not positive integers, as many as the event has dimensions.
    """
    shape = as_shape(name, sizes)
    what, dims = event
    if len(shape) not in (len(dims), len(dims) + parameters):
        more = f" or ({', '.join([*dims, 'parameters'])})" if parameters else ""
        raise ValueError(f"{name} is {sizes!r}; expected the shape of {what}, ({', '.join(dims)}){more}")
    return shape


def halved(what: str, size: Sequence[int], times: int) -> list[tuple[int, ...]]:
    """A size and those of its halves, each rounded up, from the largest to the smallest.

    Args:
        what: What has this size, for messages.
        size: One or more lengths.
        times: How often to halve them.

    Raises:
        ValueError: If a length is halved that is 1 already.
    """
    sizes = [tuple(size)]
    for _ in range(times):
        if min(sizes[-1]) == 1:
            each = " of each" if len(size) > 1 else ""
            raise ValueError(
                f"{what}; expected more than {2 ** (times - 1)}{each} for {times} halvings, one for each number of "
                "channels"
            )
        sizes.append(tuple((length + 1) // 2 for length in sizes[-1]))
    return sizes
