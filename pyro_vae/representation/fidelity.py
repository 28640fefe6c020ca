"""Compares two sets of features by nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.html_table import html_table
from pyro_vae.representation.features import as_features

PAIRS = 2**22  # the number of distances in memory at once


class FidelityAndDiversity(NamedTuple):
    """How similar samples are to data (fidelity), and how much of the data they cover (diversity).

    The neighbourhood of a point is the ball around it whose radius is the distance to its k-th nearest neighbour in the
    same set.

    Attributes:
        precision: The share of samples that lie in the neighbourhood of some datapoint.
        recall: The share of datapoints that lie in the neighbourhood of some sample.
        density: The mean number of datapoints in whose neighbourhood a sample lies, divided by k. Its expectation is 1
            if samples have the distribution of the data, and greater if they concentrate where data are dense.
        coverage: The share of datapoints with a sample in their neighbourhood. If m samples have the distribution of
            the n datapoints, its expectation is 1 - (n-1)...(n-k) / ((m+n-1)...(m+n-k)).

    Example:
        >>> representation.fidelity_and_diversity(torch.randn(100, 2), 100 + torch.randn(50, 2))
        FidelityAndDiversity(precision=0.0, recall=0.0, density=0.0, coverage=0.0)
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

    The measures depend on the features. Outliers have large neighbourhoods, which make precision and recall too high;
    density and coverage are less affected. All four depend on the numbers of datapoints and samples: the values for
    held-out data instead of samples show what a perfect model would reach.

    Args:
        data: Features of data, ``[n, features]``: pixels, codes, or outputs of a network.
        samples: The same features of samples from a model, ``[m, features]``.
        k: The number of neighbours that define a neighbourhood.

    Raises:
        TypeError: If an argument is not a floating-point tensor.
        ValueError: If features have the wrong shape, have at most k rows, are not finite, or are on different devices.

    Example:
        >>> scores = representation.fidelity_and_diversity(torch.randn(200, 2), torch.randn(200, 2), k=5)
        >>> scores.coverage > 0.8
        True
    """
    k = check_count("k", k)
    data, samples = as_features(k + 1, data=data, samples=samples)
    data_radii, sample_radii = _radii(data, k), _radii(samples, k)
    # Of each sample: in how many neighbourhoods of data it is.
    neighbours = torch.zeros(len(samples), dtype=torch.int64, device=data.device)
    nearest = []  # distance to a sample, of each datapoint
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
    """The distance of every point to its k-th nearest neighbour other than itself, ``[n]``."""
    # The k + 1 nearest points include the point itself, at distance 0.
    return torch.cat([distances.kthvalue(k + 1, dim=1).values for _, distances in _distances(x, x)])


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the rows of x, each with the distances from these rows to all rows of y."""
    step = max(1, PAIRS // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        # Matrix products are ten times as fast for pixels; distances of integers, such as binary pixels, stay exact.
        yield rows, torch.cdist(x[rows], y, compute_mode="use_mm_for_euclid_dist")
