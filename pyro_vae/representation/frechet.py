"""Two sets of features, compared by their means and covariances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_vae.representation.features import as_features

__all__ = ["frechet_distance"]


@torch.no_grad()
def frechet_distance(data: Tensor, samples: Tensor) -> float:
    """The squared Fréchet distance between normals fitted to two sets of features (Heusel et al. 2017, equation 6).

    ``||m1 - m2||^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2))``, with the means and covariances of the two: what is called FID
    where the features are those of the Inception network. It is 0 if they agree, whatever else differs. A
    model that is fitted to means and covariances, as PCA is, does well by it in linear features. Finite samples add
    to it, so that only numbers from as many samples can be compared; with no more of them than features, most of it may
    be what they add.

    Args:
        data: Features of data, ``[n, features]``: pixels, codes, or what a network makes of images.
        samples: The same features of samples from a model, ``[m, features]``.

    Raises:
        TypeError: If an argument is not a floating-point tensor.
        ValueError: If features are misshapen, of less than 2 rows, not finite, or on different devices.
    """
    factors, means = [], []
    for x in as_features(2, data=data, samples=samples):
        means.append(x.mean(0))
        # C = R^T R, so that trace((C1 C2)^(1/2)) is the sum of the singular values of R1 R2^T: C may be singular.
        factors.append(torch.linalg.qr((x - means[-1]) / math.sqrt(len(x) - 1), mode="r").R)
    shared = torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    total = factors[0].square().sum() + factors[1].square().sum()
    return ((means[0] - means[1]).square().sum() + (total - 2 * shared).clamp(min=0)).item()
