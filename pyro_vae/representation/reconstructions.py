"""How much of the data comes back."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_vae.checks import check_rows
from pyro_vae.representation.estimate import Estimate, estimate_mean

__all__ = ["reconstruction_error"]


@torch.no_grad()
def reconstruction_error(x: Tensor, reconstructed: Tensor) -> Estimate:
    """The squared error of a datapoint, averaged over its values (pixels) and over the datapoints.

    Args:
        x: Data, ``[n, *event]``.
        reconstructed: What became of them, of the same shape: ``vae.reconstruct(x)``, for one.

    Returns:
        The mean squared error of a value, times ``x[0].numel()`` that of a datapoint.

    Raises:
        TypeError: If an argument is not a tensor.
        ValueError: If the shapes differ, there are no data, or errors are not finite.
    """
    check_rows(x)
    if not isinstance(reconstructed, Tensor):
        raise TypeError(f"reconstructed is of type {type(reconstructed).__name__}; expected a tensor [n, *event]")
    if reconstructed.shape != x.shape:
        raise ValueError(f"reconstructed has shape {list(reconstructed.shape)}; expected that of x, {list(x.shape)}")
    errors = (x.double() - reconstructed.double()).square().reshape(len(x), -1).mean(1)
    if not errors.isfinite().all():
        raise ValueError(f"{int((~errors.isfinite()).sum())} datapoints have a squared error that is NaN or infinite")
    return estimate_mean(errors)
