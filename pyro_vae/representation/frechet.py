"""Compares two sets of features by their means and covariances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vae.representation.features import as_features


@torch.no_grad()
def frechet_distance(data: Tensor, samples: Tensor) -> float:
    """The squared Fréchet distance between normals fitted to two sets of features (Heusel et al. 2017, equation 6).

    It is ``||m1 - m2||^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))``, where m and C are the means and covariances of the two
    sets; with features of the Inception network it is called FID. It is 0 if means and covariances agree, even if the
    distributions differ in other ways. A model that fits means and covariances, such as PCA, has a small distance in
    linear features. The estimate is biased upwards for finite samples, so compare only distances from the same numbers
    of samples; with fewer samples than features, most of the distance may be bias.

    Args:
        data: Features of data, ``[n, features]``: pixels, codes, or outputs of a network.
        samples: The same features of samples from a model, ``[m, features]``.

    Raises:
        TypeError: If an argument is not a floating-point tensor.
        ValueError: If features have the wrong shape, have fewer than 2 rows, are not finite, or are on different
            devices.

    Example:
        >>> features = torch.randn(100, 3)
        >>> round(representation.frechet_distance(features, features + 2.0), 4)  # 3 * 2^2
        12.0
    """
    factors, means = [], []
    for x in as_features(2, data=data, samples=samples):
        means.append(x.mean(0))
        # With C = R^T R, trace((C1 C2)^(1/2)) is the sum of the singular values of R1 R2^T, also for singular C.
        factors.append(torch.linalg.qr((x - means[-1]) / math.sqrt(len(x) - 1), mode="r").R)
    shared = torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    total = factors[0].square().sum() + factors[1].square().sum()
    return ((means[0] - means[1]).square().sum() + (total - 2 * shared).clamp(min=0)).item()
