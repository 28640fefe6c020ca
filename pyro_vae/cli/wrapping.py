"""What is put around parts for the data at hand: gaps, units, counts, tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch import nn as torch_nn

from pyro_vae import likelihoods, nn
from pyro_vae.cli.seen import Seen

__all__ = ["wrapped_encoder", "wrapped_likelihood"]

REAL = ("normal", "heteroscedastic-normal")
COUNTS = ("heterogeneous-negative-binomial", "negative-binomial", "poisson", "zero-inflated")


def wrapped_encoder(
    seen: Seen, likelihood: str, make: Callable[..., torch_nn.Module], missing: bool, standardize: bool
) -> Callable[[int], torch_nn.Module]:
    """A function that makes an encoder with a given number of outputs, for data as they are.

    Args:
        seen: The data.
        likelihood: The name of the likelihood.
        make: Makes a network, given the shape of an input and the number of outputs.
        missing: Whether values are missing.
        standardize: Whether the network gets standardized data.
    """
    event = tuple(seen.splits.train.shape[1:])

    def encoder(outputs: int) -> torch_nn.Module:
        if seen.table is not None and likelihood == "columns":
            return seen.table.encoder(make((seen.table.num_features,), outputs))
        marked = missing and len(event) < 3
        network = make((*event[:-1], 2 * event[-1]) if marked else event, outputs)
        if missing:
            network = nn.MarkMissing(network) if marked else nn.FillMissing(network)
        if likelihood in COUNTS:
            network = nn.Log1p(network)
        return nn.Standardize(network, *_center_and_scale(seen.splits.train)) if standardize else network

    return encoder


def wrapped_likelihood(
    seen: Seen,
    likelihood: str,
    build: Callable[[Callable[[Sequence[int]], torch_nn.Module], Sequence[int]], torch_nn.Module],
    make: Callable[[Sequence[int]], torch_nn.Module],
    missing: bool,
    standardize: bool,
) -> torch_nn.Module:
    """A likelihood for data as they are.

    Args:
        seen: The data.
        likelihood: The name of the likelihood.
        build: Makes it, given ``make`` and the shape of one datapoint.
        make: Makes a decoder, given the shape of its outputs.
        missing: Whether values are missing.
        standardize: Whether the networks work with standardized data.

    Raises:
        ValueError: If the data are to be standardized, and the likelihood is not for real numbers.
    """
    if standardize and likelihood not in REAL:
        raise ValueError(f"--standardize is yes with --likelihood {likelihood}; expected one of {', '.join(REAL)}")
    if seen.table is not None and likelihood == "columns":
        part: torch_nn.Module = seen.table.likelihood(make((seen.table.num_parameters,)))
    else:
        part = build(make, tuple(seen.splits.train.shape[1:]))
    if standardize:
        part = likelihoods.Rescaled(part, *_center_and_scale(seen.splits.train))
    return likelihoods.Incomplete(part) if missing else part


def _center_and_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature, of images of all pixels; missing values are left out."""
    dims = tuple(range(x.ndim)) if x.ndim == 4 else tuple(range(x.ndim - 1))
    center = x.nanmean(dims)
    scale = (x - center).square().nanmean(dims).sqrt()
    return center.nan_to_num(0.0), torch.where(scale > 0, scale, 1.0).nan_to_num(1.0)
