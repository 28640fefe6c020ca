"""Two sets of features, compared by who is whose neighbour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.html_table import html_table
from pyro_vae.representation.features import as_features

__all__ = ["FidelityAndDiversity", "fidelity_and_diversity"]

PAIRS = 2**22  # distances that are in memory at once


class FidelityAndDiversity(NamedTuple):
    """How well samples look like data, and how much of the data they look like.

    The neighbourhood of a point is the ball that reaches to its k-th nearest neighbour in its own set.

    Attributes:
        precision: How many of the samples lie in the neighbourhood of some datapoint, from 0 to 1.
        recall: How many of the data lie in the neighbourhood of some sample, from 0 to 1.
        density: In how many neighbourhoods of data a sample lies, over k. Its expectation is 1 for samples of the
            distribution of the data, and greater where samples crowd together in the midst of the data.
        coverage: How many of the data have a sample in their neighbourhood, from 0 to 1. For m samples of the
            distribution of the n data its expectation is 1 - (n-1)...(n-k) / ((m+n-1)...(m+n-k)).
    """

    precision: float
    recall: float
    density: float
    coverage: float

    def summary(self) -> str:
        """The four numbers."""
        return ", ".join(f"{name} {value:.4g}" for name, value in self._asdict().items())

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return html_table({name: f"{value:.4g}" for name, value in self._asdict().items()})


@torch.no_grad()
def fidelity_and_diversity(data: Tensor, samples: Tensor, *, k: int = 5) -> FidelityAndDiversity:
    """Precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2), density and coverage (Naeem et al. 2020).

    What is near depends on the features. Outliers have large neighbourhoods, which make precision and recall too high;
    density and coverage do not suffer as much from it. All four depend on the numbers of data and samples: the
    numbers of held-out data in place of the samples say what the best model could have.

    Args:
        data: Features of data, ``[n, features]``: pixels, codes, or what a network makes of images.
        samples: The same features of samples from a model, ``[m, features]``.
        k: Which neighbour the neighbourhoods reach to.

    Raises:
        TypeError: If an argument is not a floating-point tensor.
        ValueError: If features are misshapen, of no more than k rows, not finite, or on different devices.
    """
    k = check_count("k", k)
    data, samples = as_features(k + 1, data=data, samples=samples)
    data_radii, sample_radii = _radii(data, k), _radii(samples, k)
    neighbours = torch.zeros(len(samples), dtype=torch.int64, device=data.device)  # data of which it is in the ball
    nearest = []  # sample, of each datapoint
    recalled = 0
    for rows, distances in _distances(data, samples):
        neighbours += (distances <= data_radii[rows, None]).sum(0)
        nearest.append(distances.min(1).values)
        recalled += int((distances <= sample_radii).any(1).sum())
    return FidelityAndDiversity(
        precision=(neighbours > 0).double().mean().item(),
        recall=recalled / len(data),
        density=neighbours.double().mean().item() / k,
        coverage=(torch.cat(nearest) <= data_radii).double().mean().item(),
    )


def _radii(x: Tensor, k: int) -> Tensor:
    """The distance of every point to its k-th nearest neighbour, other than itself; ``[n]``."""
    # The point itself is among the nearest k + 1, at distance 0.
    return torch.cat([distances.kthvalue(k + 1, dim=1).values for _, distances in _distances(x, x)])


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Distances from some rows of x to all of y, and which rows these are."""
    step = max(1, PAIRS // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        # By matrix products, ten times as fast for pixels; ties of integers, such as binary pixels, stay exact.
        yield rows, torch.cdist(x[rows], y, compute_mode="use_mm_for_euclid_dist")
