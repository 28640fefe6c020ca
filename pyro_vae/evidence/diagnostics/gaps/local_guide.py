"""A guide with parameters of its own for each datapoint, in the family of another guide."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vae.evidence.diagnostics.gaps.family import Family, distributions_of_modules, family_of
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.infer.recording.compiled import recorded
from pyro_vae.weights import sample_sites, terms

STEPS_TO_RECORD = 20  # recording takes the time of some steps


class LocalGuide:
    """A guide whose distributions have free parameters for each datapoint, to be fitted to it alone.

    Args:
        programs: Model and guide. The guide gives the families of distributions and the initial parameters.
        x: The datapoints, ``[n, *event]``.

    Raises:
        ValueError: If a distribution of the guide cannot be reparameterized, has no parameters for each datapoint that
            can be found, or has parameters that depend on other latents.
    """

    def __init__(self, programs: Programs, x: Tensor) -> None:
        self.programs, self.x = programs, x
        self.families: dict[str, Family] = {}
        self._recorded: dict[int, Callable[..., tuple[Tensor, ...]]] = {}  # gradients, by the number of particles
        with distributions_of_modules() as made:
            traces = (poutine.trace(programs.guide).get_trace(x) for _ in range(2))
            first, second = map(poutine.util.prune_subsample_sites, traces)
        for name, site in sample_sites(first):
            family = family_of(name, site["fn"], made)
            again = family_of(name, second.nodes[name]["fn"], made)
            if not all(torch.equal(a, b) for a, b in zip(family.parameters, again.parameters, strict=True)):
                raise ValueError(f"site {name!r} of the guide has random parameters: they depend on other latents")
            self.families[name] = family

    def __call__(self, x: Tensor) -> Any:
        """Runs the guide with these parameters."""
        return _Replaced(self.families)(self.programs.guide)(x)

    def log_weights(self, x: Tensor, num_particles: int) -> Tensor:
        """Log-weights of draws from it, ``[particles, n]``."""
        return terms(self.programs.model, self, x, num_particles, self.programs.layout).log_weights

    def fit(self, rows: Tensor, num_steps: int, num_particles: int, lr: float) -> None:
        """Maximizes the ELBO of each datapoint, with Adam and a cosine schedule of the learning rate down to 0.

        Args:
            rows: The datapoints to fit, ``[m]``; the parameters of the others do not change.
            num_steps: The number of steps.
            num_particles: Particles for each datapoint in a step.
            lr: The initial learning rate.
        """
        parameters = [parameter for family in self.families.values() for parameter in family.parameters]
        if not parameters:
            return
        optimizer = torch.optim.Adam(parameters, lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)

        @torch.enable_grad()
        def gradients(x: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
            # The loss is a sum over datapoints, and Adam scales each number by itself: datapoints are independent.
            loss = -torch.where(wanted, self.log_weights(x, num_particles).mean(0), 0.0).sum()
            return torch.autograd.grad(loss, parameters)

        wanted = torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device).index_fill_(0, rows, True)
        if num_steps >= STEPS_TO_RECORD and num_particles not in self._recorded:
            others = self.x.roll(1, 0), wanted.roll(1, 0)
            self._recorded[num_particles] = recorded(gradients, (self.x, wanted), others)
        fast = self._recorded.get(num_particles, gradients)
        for _ in range(num_steps):
            for parameter, gradient in zip(parameters, fast(self.x, wanted), strict=True):
                parameter.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
            optimizer.step()
            schedule.step()

    def copied(self) -> LocalGuide:
        """A copy with parameters of its own."""
        same = copy(self)
        same.families, same._recorded = deepcopy(self.families), {}  # which are of the parameters here
        return same

    def put_back(self, earlier: LocalGuide, rows: Tensor) -> None:
        """Gives some datapoints their earlier parameters: where ``rows``, ``[n]``, is true."""
        for name, family in self.families.items():
            old = earlier.families[name].parameters
            for parameter, before, trailing in zip(family.parameters, old, family.trailing, strict=True):
                dim = self.programs.layout.data_dim - trailing
                if parameter.ndim >= -dim and parameter.shape[dim] == len(rows):
                    parameter.copy_(torch.where(rows.reshape(-1, *[1] * (-dim - 1)), before, parameter))


class _Replaced(Messenger):
    def __init__(self, families: dict[str, Family]) -> None:
        super().__init__()
        self.families = families

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.families:
            msg["fn"] = self.families[msg["name"]]()
