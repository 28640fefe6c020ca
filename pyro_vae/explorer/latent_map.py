"""Positions of codes in a plane."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vae.checks import check_choice
from pyro_vae.system.packages import import_extra

METHODS = ("pca", "umap")


@dataclass(frozen=True)
class LatentMap:
    """Positions of codes in a plane, and the map from positions to latents.

    Attributes:
        method: ``latents`` (the two latents themselves), ``pca`` or ``umap``.
        positions: ``[n, 2]``.
        center: What is subtracted from a code before it is projected, ``[latent]``; not for UMAP.
        axes: The two directions of the plane, ``[2, latent]``; not for UMAP.
        explained: The share of the variance of the codes along each axis; not for UMAP.
    """

    method: str
    positions: Tensor
    center: Tensor | None = None
    axes: Tensor | None = None
    explained: tuple[float, ...] = ()


def latent_map(z: Tensor, method: str) -> LatentMap:
    """Projects codes to a plane: two latents directly, one latent on a line, and more by the method.

    Args:
        z: Codes, ``[n, latent]``.
        method: ``pca`` for the two principal components of the codes, or ``umap`` (McInnes et al. 2018).

    Raises:
        ValueError: If there is no such method.
        ImportError: If UMAP is not installed.
    """
    check_choice("method", method, METHODS)
    z = z.double()
    n, latent = z.shape
    if latent <= 2:
        axes = torch.eye(2, latent, dtype=z.dtype)
        return LatentMap("latents", z @ axes.T, z.new_zeros(latent), axes)
    if method == "umap":
        return LatentMap("umap", _umap(z))
    center = z.mean(0)
    _, sizes, directions = torch.linalg.svd(z - center, full_matrices=n < 2)
    axes = directions[:2]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()  # the same signs on every machine
    total = sizes.square().sum()
    shares = sizes[:2].square() / total if total > 0 else torch.zeros(2)
    return LatentMap("pca", (z - center) @ axes.T, center, axes, tuple(shares.tolist()))


def _umap(z: Tensor) -> Tensor:
    umap = import_extra("umap", "the method 'umap' needs umap-learn", "umap")
    neighbours = min(15, len(z) - 1)
    if neighbours < 2:
        raise ValueError(f"the method 'umap' needs at least 3 datapoints; there are {len(z)}")
    fitted = umap.UMAP(n_neighbors=neighbours, random_state=0, n_jobs=1, init="random" if len(z) < 10 else "spectral")
    return torch.from_numpy(fitted.fit_transform(z.float().numpy())).double()
