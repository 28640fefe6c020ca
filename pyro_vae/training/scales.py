"""The number of datapoints that a loss is a sum over, if programs scale their log-densities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, NamedTuple

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor


class Scale(NamedTuple):
    """The datapoints that the loss of a batch stands for."""

    datapoints: float  #: The loss is a sum over this number. With a subsampled data plate: all in the data set.
    is_subsample: bool = False  #: Whether the batch is a subsample: then the number is the same for every batch.


class Scales(Messenger):
    """Notes the scales of sites, by the number of datapoints in a batch.

    Programs with ``pyro.plate("data", N, subsample=x)`` have losses that are sums over N datapoints for any x.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sites: list[tuple[Any, Any]] = []
        self._known: dict[int, Scale] = {}

    def begin(self) -> None:
        """Forgets the sites of the last run."""
        self._sites.clear()

    def end(self, rows: int) -> None:
        """Notes the scale, if it is not known and the programs have run: replayed steps do not run them."""
        if rows not in self._known and self._sites:
            self._known[rows] = scale_of(self._sites, rows)

    def of(self, rows: int) -> Scale:
        """The scale of the loss of a batch with this number of rows; by default for these datapoints alone."""
        return self._known.get(rows, Scale(rows))

    @property
    def is_subsample(self) -> bool:
        """Whether batches are subsamples of the data for these programs."""
        return any(scale.is_subsample for scale in self._known.values())

    def _pyro_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg):
            self._sites.append((msg["cond_indep_stack"], msg["scale"]))


class Noted:
    """A program whose scales are noted, without scales from outside, such as a weight of the KL.

    Args:
        program: The program.
        scales: Notes them.
    """

    def __init__(self, program: Callable[..., Any], scales: Scales) -> None:
        self._program, self._scales = program, scales
        # Guards look for these.
        self.__self__ = getattr(program, "__self__", program)
        self.__func__ = getattr(program, "__func__", program)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the program."""
        with self._scales:
            return self._program(*args, **kwargs)


def scale_of(sites: Iterable[tuple[Any, Any]], rows: int) -> Scale:
    """What the loss of a batch stands for.

    Args:
        sites: The plates of each site, and its scale.
        rows: The number of datapoints in the batch.
    """
    sites = list(sites)
    frame = _data_plate([frame for stack, _ in sites for frame in stack], rows)
    inside = [scale for stack, scale in sites if frame is None or any(each.name == frame.name for each in stack)]
    common = _common(inside)
    if frame is None:
        return Scale(rows * (common or 1.0))
    full, size = float(frame.full_size), float(frame.size)
    # Sites may have weights of their own, such as a KL weight; the scale that all share is that of the plate.
    return Scale(size * (common or full / size), is_subsample=full != size == rows)


def _data_plate(frames: list[Any], rows: int) -> Any:
    """The plate that the batch is all or a subsample of; None if there is none."""
    candidates = {frame.name: frame for frame in frames if rows in (frame.size, frame.full_size)}
    counts = Counter(frame.name for frame in frames)
    if "data" in candidates:
        return candidates["data"]
    key = lambda frame: (counts[frame.name], frame.size != frame.full_size)  # noqa: E731
    return max(candidates.values(), key=key, default=None)


def _common(scales: list[Any]) -> float | None:
    """The positive number that all of them are equal to; None if there is none."""
    numbers = [_number(scale) for scale in scales]
    if not numbers or not all(math.isclose(each, numbers[0], rel_tol=1e-6) for each in numbers) or numbers[0] <= 0:
        return None
    return numbers[0]


def _number(scale: Any) -> float:
    if isinstance(scale, Tensor):
        return scale.item() if scale.numel() == 1 else math.nan
    return float(scale) if isinstance(scale, Real) else math.nan
