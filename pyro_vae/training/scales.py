"""How many datapoints a loss is a sum over, whatever two programs multiply their log-densities by."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, NamedTuple

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

__all__ = ["Noted", "Scale", "Scales", "scale_of"]


class Scale(NamedTuple):
    """What the loss of a batch stands for."""

    datapoints: float  #: The loss is a sum over so many: those of the data set, if the data plate is subsampled.
    is_subsample: bool = False  #: Whether the batch is a subsample: then that number is the same for every batch.


class Scales(Messenger):
    """Notes the scales of sites, by the number of datapoints that the programs are called with.

    Programs with ``pyro.plate("data", N, subsample=x)`` have losses that are sums over N datapoints, whatever x is.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sites: list[tuple[Any, Any]] = []
        self._known: dict[int, Scale] = {}

    def begin(self) -> None:
        """Forgets the sites of the last run."""
        self._sites.clear()

    def end(self, rows: int) -> None:
        """Notes what they say, if that is not known and programs have run: replayed steps run none."""
        if rows not in self._known and self._sites:
            self._known[rows] = scale_of(self._sites, rows)

    def of(self, rows: int) -> Scale:
        """What the loss of so many datapoints stands for; of themselves, where no program was seen to run."""
        return self._known.get(rows, Scale(rows))

    @property
    def is_subsample(self) -> bool:
        """Whether batches are subsamples of the data for these programs."""
        return any(scale.is_subsample for scale in self._known.values())

    def _pyro_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg):
            self._sites.append((msg["cond_indep_stack"], msg["scale"]))


class Noted:
    """A program whose scales are noted, without those that others put around it, such as a weight of the KL.

    Args:
        program: The program.
        scales: Where.
    """

    def __init__(self, program: Callable[..., Any], scales: Scales) -> None:
        self._program, self._scales = program, scales
        # What it depends on is found by these.
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
    # Sites with scales of their own, as that of a weighted KL, are weighted: the scale that all share is the plate's.
    return Scale(size * (common or full / size), is_subsample=full != size == rows)


def _data_plate(frames: list[Any], rows: int) -> Any:
    """The plate of which the batch is the subsample, or all of it; None if there is none."""
    candidates = {frame.name: frame for frame in frames if rows in (frame.size, frame.full_size)}
    counts = Counter(frame.name for frame in frames)
    if "data" in candidates:
        return candidates["data"]
    key = lambda frame: (counts[frame.name], frame.size != frame.full_size)  # noqa: E731
    return max(candidates.values(), key=key, default=None)


def _common(scales: list[Any]) -> float | None:
    """The positive number that all of them are; None if there is none."""
    numbers = [_number(scale) for scale in scales]
    if not numbers or not all(math.isclose(each, numbers[0], rel_tol=1e-6) for each in numbers) or numbers[0] <= 0:
        return None
    return numbers[0]


def _number(scale: Any) -> float:
    if isinstance(scale, Tensor):
        return scale.item() if scale.numel() == 1 else math.nan
    return float(scale) if isinstance(scale, Real) else math.nan
