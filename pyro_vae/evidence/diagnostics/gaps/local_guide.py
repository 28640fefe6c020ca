"""A guide with parameters of its own for each datapoint, in the family of another guide."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import transform_to

from pyro_vae.distributions.independent import split_independent
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
        ValueError: If a distribution of the guide cannot be reparameterized, is not given by its parameters (as a
            normalizing flow is not), or has parameters that depend on other latents.
    """

    def __init__(self, programs: Programs, x: Tensor) -> None:
        self.programs, self.x = programs, x
        self.families: dict[str, _Family] = {}
        self._recorded: dict[int, Callable[..., tuple[Tensor, ...]]] = {}  # gradients, by the number of particles
        traces = (poutine.trace(programs.guide).get_trace(x) for _ in range(2))
        first, second = map(poutine.util.prune_subsample_sites, traces)
        for name, site in sample_sites(first):
            family = _Family(name, site["fn"])
            again = _Family(name, second.nodes[name]["fn"])
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
            family.put_back(earlier.families[name], rows, self.programs.layout.data_dim)


class _Family:
    """A family of distributions with free, unconstrained parameters."""

    def __init__(self, name: str, fn: Any) -> None:
        fn, self.event_dims = split_independent(fn)
        self.kind = type(fn)
        constraints = getattr(fn, "arg_constraints", {})
        names = [key for key in constraints if key in fn.__dict__]
        names = names or [key for key in constraints if hasattr(fn, key)]  # those of a LogNormal are properties
        if "scale_tril" in constraints:
            names = ["loc", "scale_tril"]  # one of three equivalent ways to give the covariance
        if not fn.has_rsample or not names:
            raise ValueError(
                f"site {name!r} of the guide, a {self.kind.__name__}, is not given by parameters that can be optimized "
                "for each datapoint: it must be reparameterized, and no normalizing flow"
            )
        self.transforms = {key: transform_to(constraints[key]) for key in names}
        self.trailing = [constraints[key].event_dim + self.event_dims for key in names]  # to the right of the plates
        self.parameters = [
            transform.inv(getattr(fn, key).detach()).clone().requires_grad_()
            for key, transform in self.transforms.items()
        ]

    def put_back(self, earlier: _Family, rows: Tensor, data_dim: int) -> None:
        """Takes the parameters of some datapoints from an earlier copy."""
        for parameter, old, trailing in zip(self.parameters, earlier.parameters, self.trailing, strict=True):
            dim = data_dim - trailing
            if parameter.ndim >= -dim and parameter.shape[dim] == len(rows):
                parameter.copy_(torch.where(rows.reshape(-1, *[1] * (-dim - 1)), old, parameter))

    def __call__(self) -> Any:
        given = {
            key: transform(parameter)
            for (key, transform), parameter in zip(self.transforms.items(), self.parameters, strict=True)
        }
        return self.kind(**given, validate_args=False).to_event(self.event_dims)


class _Replaced(Messenger):
    def __init__(self, families: dict[str, _Family]) -> None:
        super().__init__()
        self.families = families

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.families:
            msg["fn"] = self.families[msg["name"]]()
