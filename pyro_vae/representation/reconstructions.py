"""The error of reconstructions."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.checks import check_rows
from pyro_vae.representation.score import Score, mean_score


@torch.no_grad()
def reconstruction_error(x: Tensor, reconstructed: Tensor) -> Score:
    """The mean squared error of reconstructions, averaged over the values (pixels) of a datapoint and over datapoints.

    Args:
        x: Data, ``[n, *event]``.
        reconstructed: Their reconstructions, with the same shape, such as ``vae.reconstruct(x)``.

    Returns:
        The mean squared error of one value with its standard error. Times ``x[0].numel()`` it is that of a datapoint.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: If the shapes differ, there are no data, or an error is not finite.

    Example:
        >>> error = representation.reconstruction_error(x, vae.reconstruct(x))
        >>> 0 < error.value < 1
        True
    """
    check_rows(x)
    if not isinstance(reconstructed, Tensor):
        raise TypeError(f"reconstructed is of type {type(reconstructed).__name__}; expected a tensor [n, *event]")
    if reconstructed.shape != x.shape:
        raise ValueError(f"reconstructed has shape {list(reconstructed.shape)}; expected that of x, {list(x.shape)}")
    errors = (x.double() - reconstructed.double()).square().reshape(len(x), -1).mean(1)
    if not errors.isfinite().all():
        raise ValueError(f"{int((~errors.isfinite()).sum())} datapoints have a squared error that is NaN or infinite")
    return mean_score(errors)
