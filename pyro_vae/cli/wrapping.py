"""Wraps parts for the data: missing values, units, counts, tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch import nn as torch_nn

from pyro_vae import likelihoods, nn
from pyro_vae.cli.seen import Seen

REAL = ("normal", "heteroscedastic-normal")
Units = tuple[Tensor, Tensor]  # a center and a scale, which broadcast with ``[*event]``
COUNTS = ("heterogeneous-negative-binomial", "negative-binomial", "poisson", "zero-inflated")


def wrapped_encoder(
    seen: Seen, likelihood: str, make: Callable[..., torch_nn.Module], missing: bool, units: Units | None
) -> Callable[[int], torch_nn.Module]:
    """A function that makes an encoder with a given number of outputs, for data before any transformation.

    Args:
        seen: The data.
        likelihood: The name of the likelihood.
        make: Makes a network, given the shape of an input and the number of outputs.
        missing: Whether values are missing.
        units: What the data are standardized by for the network; None: they are not.
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
        return network if units is None else nn.Standardize(network, *units)

    return encoder


def wrapped_likelihood(
    seen: Seen,
    likelihood: str,
    build: Callable[[Callable[[Sequence[int]], torch_nn.Module], Sequence[int]], torch_nn.Module],
    make: Callable[[Sequence[int]], torch_nn.Module],
    missing: bool,
    units: Units | None,
) -> torch_nn.Module:
    """A likelihood for data before any transformation.

    Args:
        seen: The data.
        likelihood: The name of the likelihood.
        build: Makes it, given ``make`` and the shape of one datapoint.
        make: Makes a decoder, given the shape of its outputs.
        missing: Whether values are missing.
        units: What the data are standardized by for the network; None: they are not.

    Raises:
        ValueError: If the data are to be standardized, and the likelihood is not for real numbers.
    """
    if units is not None and likelihood not in REAL:
        raise ValueError(f"--standardize is yes with --likelihood {likelihood}; expected one of {', '.join(REAL)}")
    if seen.table is not None and likelihood == "columns":
        part: torch_nn.Module = seen.table.likelihood(make((seen.table.num_parameters,)))
    else:
        part = build(make, tuple(seen.splits.train.shape[1:]))
    if units is not None:
        part = likelihoods.Rescaled(part, *units)
    return likelihoods.Incomplete(part) if missing else part


def units_of(x: Tensor) -> Units:
    """Mean and standard deviation of each feature, of images of all pixels; missing values are left out."""
    dims = tuple(range(x.ndim)) if x.ndim == 4 else tuple(range(x.ndim - 1))
    center = x.nanmean(dims)
    scale = (x - center).square().nanmean(dims).sqrt()
    return center.nan_to_num(0.0), torch.where(scale > 0, scale, 1.0).nan_to_num(1.0)
