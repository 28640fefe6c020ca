"""The latents of a pair of programs as real vectors, for methods with gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import AffineTransform, ComposeTransform, Transform

from pyro_vae.distributions.bijections import bijection
from pyro_vae.evidence.unconstrained.latent_draws import latent_draws
from pyro_vae.evidence.unconstrained.units import units
from pyro_vae.weights import Layout, Program, vectorized

Place = Callable[[str, Transform], Tensor]  # the value of a site, from its name and its map from real vectors


class LatentVectors:
    """Maps the latents of a model to vectors ``[particles, n, dims]`` without bounds, and back.

    A site whose distribution depends on other latents is measured in units of that distribution: its coordinates are
    the distance from its location, divided by its scale. In these coordinates a narrow p(z1 | z2) whose place depends
    on z2 becomes a standard normal (the "non-centered" parameterization: Papaspiliopoulos et al. 2007). This is worse
    than z1 itself where the data determine z1. So location and scale are those of the product of p(z1 | z2) and a
    normal approximation of the likelihood, if there is one (Gorinova et al. 2020 learn such coordinates).

    Args:
        model: The model.
        sites: The latent sites of a trace of the model under a plate of particles, by name.
        layout: The layout of the programs.
        dependent: The names of the sites whose distributions depend on other latents.

    Attributes:
        transforms: The maps from real vectors to the latents, by site; examples for the dependent sites.
        dependent: The dependent sites, in the order of the model.

    Raises:
        ValueError: If a site has no map to real vectors, because it is discrete or on a sphere, for example.
    """

    def __init__(self, model: Program, sites: dict[str, Any], layout: Layout, dependent: Collection[str] = ()) -> None:
        self.model, self.layout = model, layout
        self.transforms = {name: _to_support(name, site["fn"]) for name, site in sites.items()}
        self.dependent = [name for name in sites if name in dependent]
        self.shapes = {
            name: layout.by_datapoint(transform.inv(sites[name]["value"])).shape[2:]
            for name, transform in self.transforms.items()
        }

    @property
    def dims(self) -> int:
        """The length of a vector."""
        return sum(shape.numel() for shape in self.shapes.values())

    def columns(self, name: str) -> slice:
        """The elements of a vector that belong to a site."""
        names = list(self.shapes)
        start = sum(self.shapes[each].numel() for each in names[: names.index(name)])
        return slice(start, start + self.shapes[name].numel())

    def to_vectors(self, latents: dict[str, Tensor], x: Tensor, likelihood: Tensor | None = None) -> Tensor:
        """Vectors ``[particles, n, dims]`` for latents by site, with the dimensions they have in the programs.

        Args:
            latents: The latents.
            x: Data, ``[n, *event]``.
            likelihood: The likelihood of the elements of dependent sites, approximated by normal densities: the
                precision, and the precision times the mean, ``[n, 2, dims]``. By default it is constant.
        """
        found: dict[str, Tensor] = {}

        def place(name: str, transform: Transform) -> Tensor:
            found[name] = self.flat(transform.inv(latents[name]))
            return latents[name]

        self._place(place, x, len(next(iter(latents.values()))), likelihood)
        return torch.cat([found[name] for name in self.shapes], dim=-1)

    def to_latents(
        self, vectors: Tensor, x: Tensor, likelihood: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The latents, and the log-determinant of the map from vectors to them, ``[particles, n]``.

        The arguments are those of :meth:`to_vectors`, with vectors ``[particles, n, dims]``.
        """
        latents, log_det = {}, vectors.new_zeros(vectors.shape[:2])

        def place(name: str, transform: Transform) -> Tensor:
            nonlocal log_det
            free = self.of_site(name, vectors)
            latents[name] = transform(free)
            log_det = log_det + self.flat(transform.log_abs_det_jacobian(free, latents[name])).sum(-1)
            return latents[name]

        self._place(place, x, len(vectors), likelihood)
        return latents, log_det

    def units_at(self, vectors: Tensor, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Location and scale of the dependent sites at vectors ``[particles, n, dims]``, each of this shape.

        They are those of p(z1 | z2), without the data. Sites that have no such units are left out.
        """
        placing = self._place(lambda name, transform: transform(self.of_site(name, vectors)), x, len(vectors), None)
        found = {}
        for name, (location, scale) in placing.units.items():
            like = self.of_site(name, vectors)
            found[name] = self.flat(location.expand_as(like)), self.flat(scale.expand_as(like))
        return found

    def of_site(self, name: str, vectors: Tensor) -> Tensor:
        """The elements of a site, with the dimensions that it has in the programs."""
        part = vectors[..., self.columns(name)]
        return self.layout.by_site(part.reshape(*part.shape[:2], *self.shapes[name]))

    def flat(self, value: Tensor) -> Tensor:
        """The inverse of :meth:`of_site`, ``[particles, n, size]``."""
        value = self.layout.by_datapoint(value)
        return value.reshape(*value.shape[:2], -1)

    def _place(self, place: Place, x: Tensor, num_particles: int, likelihood: Tensor | None) -> _Placing:
        """Calls ``place`` for all sites, in the order of the model."""
        placing = _Placing(self, place, likelihood)
        if self.dependent:
            with placing:
                latent_draws(vectorized(self.model, num_particles, self.layout), x, self.transforms)
        else:
            for name, transform in self.transforms.items():
                place(name, transform)
        return placing


class _Placing(Messenger):
    """Sets latent sites to given values, with maps that depend on the latents above them."""

    def __init__(self, vectors: LatentVectors, place: Place, likelihood: Tensor | None) -> None:
        super().__init__()
        self.vectors, self.place, self.likelihood = vectors, place, likelihood
        self.units: dict[str, tuple[Tensor, Tensor]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self.vectors.transforms:
            is_dependent = name in self.vectors.dependent
            transform = self._transform(name, msg["fn"]) if is_dependent else self.vectors.transforms[name]
            msg["value"], msg["done"] = self.place(name, transform), True

    def _transform(self, name: str, fn: Any) -> Transform:
        onto = _to_support(name, fn)
        measured = units(fn, onto)
        if measured is None:
            return onto
        location, scale = self.units[name] = measured
        if self.likelihood is not None:
            precision, weighted = (self.vectors.of_site(name, part[None]) for part in self.likelihood.unbind(1))
            variance = scale.square()
            ratio = 1 + precision * variance
            location, scale = (location + weighted * variance) / ratio, scale / ratio.sqrt()
        return ComposeTransform([AffineTransform(location, scale), onto])


def _to_support(name: str, fn: Any) -> Transform:
    """The map from real vectors to the support of a distribution."""
    try:
        return bijection(fn)
    except ValueError as error:
        raise ValueError(f"latent site {name!r} {error}") from error
