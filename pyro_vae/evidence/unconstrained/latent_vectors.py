"""The latents of a pair of programs as real vectors, for methods with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae.distributions.bijections import bijection
from pyro_vae.weights import Layout


class LatentVectors:
    """Maps the latents of a model to vectors ``[particles, n, dims]`` without bounds, and back.

    Args:
        sites: The latent sites of a trace of the model under a plate of particles, by name.
        layout: The layout of the programs.

    Raises:
        ValueError: If a site has no map to real vectors, because it is discrete or on a sphere, for example.
    """

    def __init__(self, sites: dict[str, Any], layout: Layout) -> None:
        self.layout = layout
        self.transforms = {name: _to_support(name, site["fn"]) for name, site in sites.items()}
        self.shapes = {
            name: layout.by_datapoint(transform.inv(sites[name]["value"])).shape[2:]
            for name, transform in self.transforms.items()
        }

    @property
    def dims(self) -> int:
        """The length of a vector."""
        return sum(shape.numel() for shape in self.shapes.values())

    def to_vectors(self, latents: dict[str, Tensor]) -> Tensor:
        """Vectors ``[particles, n, dims]`` for latents by site, with the dimensions they have in the programs."""
        parts = []
        for name, transform in self.transforms.items():
            free = self.layout.by_datapoint(transform.inv(latents[name]))
            parts.append(free.reshape(*free.shape[:2], -1))
        return torch.cat(parts, dim=-1)

    def to_latents(self, vectors: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The latents, and the log-determinant of the map from vectors to them, ``[particles, n]``."""
        latents, log_det = {}, vectors.new_zeros(vectors.shape[:2])
        sizes = [shape.numel() for shape in self.shapes.values()]
        for (name, shape), part in zip(self.shapes.items(), vectors.split(sizes, dim=-1), strict=True):
            transform = self.transforms[name]
            free = self.layout.by_site(part.reshape(*part.shape[:2], *shape))
            latents[name] = transform(free)
            jacobian = self.layout.by_datapoint(transform.log_abs_det_jacobian(free, latents[name]))
            log_det = log_det + jacobian.reshape(*part.shape[:2], -1).sum(-1)
        return latents, log_det


def _to_support(name: str, fn: Any) -> Any:
    """The map from real vectors to the support of a distribution."""
    try:
        return bijection(fn)
    except ValueError as error:
        raise ValueError(f"latent site {name!r} {error}") from error
