"""Families of distributions with free parameters for each datapoint: those of a guide's distribution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, transform_to
from torch.nn.modules.module import register_module_forward_hook

from pyro_vae.distributions.conversion import as_pyro
from pyro_vae.distributions.independent import split_independent
from pyro_vae.distributions.zuko_import import zuko

TRANSFORMS = "transform", "transforms"  # of a flow of zuko; of a TransformedDistribution


class Family(Protocol):
    """A family of distributions.

    Attributes:
        parameters: Its free parameters, without constraints.
        trailing: For each of them, the number of dimensions to the right of those of the plates.
    """

    parameters: list[Tensor]
    trailing: list[int]

    def __call__(self) -> Any:
        """The distribution with these parameters."""


class Made(NamedTuple):
    """A distribution, the module that returned it, and what the module was called with."""

    distribution: Distribution
    module: nn.Module
    inputs: tuple[Any, ...]


@contextmanager
def distributions_of_modules() -> Iterator[list[Made]]:
    """The distributions that modules return in the ``with`` block, those of inner modules first."""
    made: list[Made] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Distribution):
            made.append(Made(output, module, inputs))

    handle = register_module_forward_hook(note)
    try:
        yield made
    finally:
        handle.remove()


def family_of(name: str, fn: Any, made: list[Made]) -> Family:
    """The family of the distribution at a site of the guide, with the parameters of this distribution.

    Args:
        name: The name of the site.
        fn: The distribution.
        made: The distributions that the guide's modules have returned.

    Raises:
        ValueError: If it cannot be reparameterized, or its parameters are not found.
    """
    fn, event_dims = split_independent(fn)
    if fn.has_rsample:
        names = _names(fn)
        if names:
            return _ByParameters(fn, names, event_dims)
        for module, inputs in _makers(fn, made):
            network = getattr(module, "network", None)
            if isinstance(network, nn.Module):
                with torch.no_grad():
                    outputs = network(*inputs)
                return _ByContext(_without_network(module), outputs, event_dims)
            if isinstance(module, zuko.lazy.LazyDistribution) and inputs:
                return _ByContext(module, inputs[0], event_dims)
    raise ValueError(
        f"site {name!r} of the guide, a {type(fn).__name__}, is not given by parameters that can be optimized for each "
        "datapoint; expected a reparameterized distribution with parameters, a posterior of this library, or a flow of "
        "zuko that is called with a context"
    )


def _makers(fn: Any, made: list[Made]) -> Iterator[tuple[nn.Module, tuple[Any, ...]]]:
    """The modules that returned this distribution, and what they were called with.

    A plate expands a distribution: the copy has the same transform, or the same list of them.
    """
    for distribution, module, inputs in made:
        original, _ = split_independent(distribution)
        if any(hasattr(fn, key) and getattr(original, key, None) is getattr(fn, key) for key in TRANSFORMS):
            yield module, inputs


def _names(fn: Any) -> list[str]:
    constraints = getattr(fn, "arg_constraints", {})
    if "scale_tril" in constraints:
        return ["loc", "scale_tril"]  # one of three equivalent ways to give the covariance
    names = [key for key in constraints if key in fn.__dict__]
    return names or [key for key in constraints if hasattr(fn, key)]  # those of a LogNormal are properties


class _ByParameters:
    """Distributions of one class: their parameters are free."""

    def __init__(self, fn: Any, names: list[str], event_dims: int) -> None:
        self.kind, self.event_dims = type(fn), event_dims
        constraints = fn.arg_constraints
        self.transforms = {key: transform_to(constraints[key]) for key in names}
        self.trailing = [constraints[key].event_dim + event_dims for key in names]
        self.parameters = [
            transform.inv(getattr(fn, key).detach()).clone().requires_grad_()
            for key, transform in self.transforms.items()
        ]

    def __call__(self) -> Any:
        given = {
            key: transform(parameter)
            for (key, transform), parameter in zip(self.transforms.items(), self.parameters, strict=True)
        }
        return self.kind(**given, validate_args=False).to_event(self.event_dims)


class _ByContext:
    """Distributions that a module returns: what it is called with is free, its weights are not."""

    def __init__(self, module: nn.Module, context: Tensor, event_dims: int) -> None:
        self.module, self.event_dims = module, event_dims
        self.trailing = [1 + event_dims]
        self.parameters = [context.detach().clone().requires_grad_()]

    def __call__(self) -> Any:
        return as_pyro(self.module(self.parameters[0])).to_event(self.event_dims)


def _without_network(posterior: Any) -> nn.Module:
    """A copy of the posterior, as a function of the outputs of its network."""
    return deepcopy(posterior, {id(posterior.network): nn.Identity()})
