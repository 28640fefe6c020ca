"""A description of data, and the names of parts that suit them."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Subset

from pyro_vae.data import Splits

if TYPE_CHECKING:
    from pyro_vae.tables import Table


ROWS, NUMBERS = 2000, 2**22  # that are looked at, to find the kind of the values


@dataclass(frozen=True)
class Seen:
    """Data with their description, and the names of parts that suit them.

    Attributes:
        words: The description, such as "500 colour images, 64 x 64".
        splits: The data.
        likelihood: The name of a suitable likelihood.
        network: The name of suitable networks.
        standardize: Whether networks should get standardized data.
        table: For tables, how columns become numbers.
        whole: All data and labels, in the order of the file.
        files: Training data that are larger than memory; then ``splits.train`` has a sample of them.
    """

    words: str
    splits: Splits
    likelihood: str
    network: str = "mlp"
    standardize: bool = False
    table: Table | None = None
    #: Options of train that suit the data, by flag, for those that the user has not chosen.
    options: dict[str, list[str]] = field(default_factory=dict)
    #: The names of the labels 0, 1, 2, ..., if they have names.
    classes: tuple[str, ...] = ()
    #: All data and labels, in the order of the file.
    whole: tuple[Tensor, Tensor | None] | None = None
    files: Subset[Tensor] | None = None

    def all(self) -> tuple[Tensor, Tensor | None]:
        """All data and their labels, in the order of the file if they are in one array."""
        if self.files is not None:
            raise ValueError(
                "the data are larger than memory; choose --split test or valid, or smaller data with --data"
            )
        if self.whole is not None:
            return self.whole
        splits = self.splits
        labels = [splits.train_labels, splits.valid_labels, splits.test_labels]
        known = [each for each in labels if each is not None]
        together = torch.cat(known) if len(known) == len(labels) else None
        return torch.cat([splits.train, splits.valid, splits.test]), together

    @property
    def has_gaps(self) -> bool:
        """Whether values are missing."""
        return _has_gaps(self.splits)


def seen_arrays(splits: Splits, what: str = "", n: int | None = None) -> Seen:
    """Describes arrays ``[n, *event]`` by their values and their shape.

    Args:
        splits: The arrays.
        what: Words to begin the description with.
        n: The number of datapoints, if it is not that of the splits.

    Raises:
        ValueError: If all values are missing.
    """
    n = n or sum(len(part) for part in (splits.train, splits.valid, splits.test))
    event = tuple(splits.train.shape[1:])
    rows = min(ROWS, max(1, NUMBERS // prod(event)))
    values, likelihood = _values(splits.train[:rows], event)
    words, network = _shape(n, event, values)
    gaps = ", with missing values" if _has_gaps(splits) else ""
    is_large = len(event) > 1 and min(event[-2:]) >= 8
    if values == "counts" and is_large and splits.train[:rows].nan_to_num(0).max() <= 255:
        gaps += "; if these are images with levels from 0 to 255, save them as bytes (uint8)"
    return Seen((f"{what}, " if what else "") + words + gaps, splits, likelihood, network, values == "real numbers")


def _has_gaps(splits: Splits) -> bool:
    """Whether values are missing, in any part of the data."""
    return any(bool(each.isnan().any()) for each in (splits.train, splits.valid, splits.test))


def _values(x: Tensor, event: tuple[int, ...]) -> tuple[str, str]:
    known = x[~x.isnan()]
    if not known.numel():
        raise ValueError("the data have no values: all are missing")
    whole = bool((known % 1 == 0).all())
    if whole and known.min() >= 0 and known.max() <= 1:
        return "0 and 1", "bernoulli"
    if whole and known.min() >= 0:
        return "counts", "negative-binomial"
    if known.min() >= 0 and known.max() <= 1:
        levels = known * 255
        if bool(((levels - levels.round()).abs() < 0.01).all()):
            return "8 bit", "discretized-logistic"
        return "numbers from 0 to 1", "continuous-bernoulli" if len(event) == 3 else "normal"
    return "real numbers", "normal"


def _shape(n: int, event: tuple[int, ...], values: str) -> tuple[str, str]:
    if len(event) == 3 and event[0] in (1, 3, 4):
        colour = {1: "binary" if values == "0 and 1" else "grey", 3: "colour", 4: "four-channel"}[event[0]]
        deep = values not in ("0 and 1", "real numbers") and min(event[1:]) >= 8
        bits = "" if values == "0 and 1" else f", {values}"
        return f"{n} {colour} images, {event[1]} x {event[2]}{bits}", "convolutional" if deep else "mlp"
    if len(event) == 2:
        return f"{n} series of {event[0]} steps and {event[1]} features, {values}", "series"
    if len(event) == 1:
        return f"{n} vectors of {event[0]} values, {values}", "mlp"
    return f"{n} arrays of shape {list(event)}, {values}", "mlp"
