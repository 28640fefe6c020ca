"""Draws from a guide, and the log-densities of model and guide at these draws."""

from __future__ import annotations

from typing import Any

from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from torch import Tensor

from pyro_vae.weights import Layout, Program, sample_sites, sum_out, trace_of

Latents = dict[str, Tensor]


class Particles:
    """Draws from the guide for each datapoint, and the log-densities of both programs at these or other latents.

    The gradient with respect to the parameters of q is a sum of two terms: the path derivative, through the draws, and
    the score function, the gradient of log q at given draws. To separate them, evaluate the programs at the
    ``fixed`` latents, where only the second term remains.

    Scales of sites (``poutine.scale``, a KL weight) multiply their log-densities. The scale of a subsampled data plate
    is left out: it says how many datapoints each datapoint represents, and is not part of its log-weights.

    Args:
        model: The model, called with x alone.
        guide: The guide, called with x alone.
        x: Data, ``[n, *event]``.
        num_particles: The number of draws for each datapoint.
        layout: The layout of the programs.
    """

    def __init__(self, model: Program, guide: Program, x: Tensor, num_particles: int, layout: Layout) -> None:
        self._model, self._guide, self._x = model, guide, x
        self._num_particles, self.layout = num_particles, layout
        self._trace = trace_of(guide, x, num_particles, layout)
        self._sites = sample_sites(self._trace)
        self.latents: Latents = {name: site["value"] for name, site in self._sites}  #: The draws, by site.
        self.fixed: Latents = {name: z.detach() for name, z in self.latents.items()}  #: The draws without a gradient.

    @property
    def weight(self) -> float:
        """How many datapoints each row of the batch represents, more than one if the data plate is subsampled."""
        return _weight(self._sites[0][1], self.layout)

    @property
    def not_reparameterized(self) -> list[str]:
        """The names of sites whose draws have no gradient."""
        return [name for name, site in self._sites if not site["fn"].has_rsample]

    def log_joint(self, latents: Latents) -> Tensor:
        """log p(x, z) in nats, ``[particles, n]``."""
        return self._sum(self._run(self._model, latents))

    def log_posterior(self, latents: Latents) -> Tensor:
        """log q(z | x) in nats, ``[particles, n]``."""
        if latents is self.latents:
            return self._sum(self._trace)
        if len(self._sites) > 1:  # the distributions of some sites may depend on other sites
            return self._sum(self._run(self._guide, latents))
        (name, site), *_ = self._sites
        return self._log_prob(name, {**site, "value": latents[name]})

    def log_weights(self, latents: Latents) -> Tensor:
        """log p(x, z) - log q(z | x) in nats, ``[particles, n]``."""
        return self.log_joint(latents) - self.log_posterior(latents)

    def log_path_weights(self, latents: Latents) -> Tensor:
        """The log-weights with only the path derivative as their gradient: the score function is subtracted."""
        score = self.log_posterior(self.fixed)
        return self.log_weights(latents) + score - score.detach()

    def broadcast(self, values: Tensor, z: Tensor) -> Tensor:
        """Views values ``[particles, n]`` so that they broadcast with the draws of a latent site."""
        return self.layout.by_site(values[(..., *[None] * (z.ndim - 2))])

    def _run(self, program: Program, latents: Latents) -> Trace:
        return trace_of(program, self._x, self._num_particles, self.layout, latents)

    def _sum(self, trace: Trace) -> Tensor:
        log_prob: Any = sum(self._log_prob(name, site) for name, site in sample_sites(trace))
        return log_prob

    def _log_prob(self, name: str, site: Any) -> Tensor:
        log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
        scale = site["scale"] / _weight(site, self.layout)
        return sum_out(scale_and_mask(log_prob, scale, site["mask"]), self.layout, name)


def _weight(site: Any, layout: Layout) -> float:
    frame = next(frame for frame in site["cond_indep_stack"] if frame.name == layout.data_plate)
    return frame.full_size / frame.size
