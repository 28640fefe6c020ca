"""The parts of a model as functions of tensors, for files that other programs run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.distributions.independent import split_independent
from pyro_vae.distributions.named_parameters import named_parameters
from pyro_vae.distributions.zuko_import import zuko
from pyro_vae.exporting import ExportError, Program

ROWS = (7, 1)  # numbers of rows that each file is tried with

#: Inputs by name, for each number of rows.
Examples = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]


def encoder(
    posterior: Callable[..., Any],
    parts: Sequence[nn.Module],
    examples: Examples,
    words: Mapping[str, str],
    formula: str,
) -> Program:
    """The code of x, with the parameters of q(z | x); for a flow also draws z with log q(z | x), for given noise.

    Args:
        posterior: Called with the inputs; returns q(z | x).
        parts: The modules that it calls.
        examples: Its inputs.
        words: What they are.
        formula: What the distribution is.

    Raises:
        ExportError: If q(z | x) has neither a mean nor a base that noise can be transformed from.
    """
    q = posterior(*examples[0].values())
    about = f"{formula}, a {spelled(q)}"
    parameters = {name: f"parameter {name} of {formula}" for name in named_parameters(q)}
    if _has_mean(q):
        words = {**words, "code": f"the mean of {formula}", **parameters}
        return Program("encoder", lambda *inputs: with_code(posterior(*inputs)), parts, examples, words, about)
    noise = [torch.randn_like(code_of(posterior(*inputs.values()))) for inputs in examples]
    examples = ({**examples[0], "eps": noise[0]}, {**examples[1], "eps": noise[1]})
    words = {
        **words,
        "eps": "standard normal noise, from which z is made",
        "code": "z at the mean of the base distribution of the flow",
        **parameters,
        "z": f"a draw from {formula}, made from eps",
        "log_q": f"log {formula} of this draw, in nats",
    }

    def draw(*inputs: Tensor) -> dict[str, Tensor]:
        q = posterior(*inputs[:-1])
        flow = _flow(q)
        normal, _ = split_independent(flow.base)
        start = torch.stack([normal.loc, normal.loc + normal.scale * inputs[-1]])  # at once, which is half the program
        (code, z), (_, log_volume) = flow.transform.inv.call_and_ladj(start)
        return {"code": code, **named_parameters(q), "z": z, "log_q": flow.base.log_prob(start[1]) - log_volume}

    return Program("encoder", draw, parts, examples, words, about)


def conditional(
    name: str,
    distribution: Callable[..., Any],
    parts: Sequence[nn.Module],
    examples: Examples,
    words: Mapping[str, str],
    formula: str,
) -> Program:
    """The parameters of a distribution, such as p(x | z), and its mean if it has one in closed form.

    Args:
        name: The name of the program.
        distribution: Called with the inputs.
        parts: The modules that it calls.
        examples: Its inputs.
        words: What they are.
        formula: What the distribution is.
    """

    def outputs(*inputs: Tensor) -> dict[str, Tensor]:
        p = distribution(*inputs)
        return named_parameters(p) | ({"mean": p.mean} if _has_mean(p) else {})

    p, names = distribution(*examples[0].values()), outputs(*examples[0].values())
    words = {**words, **{each: f"parameter {each} of {formula}" for each in names}, "mean": f"the mean of {formula}"}
    return Program(name, outputs, parts, examples, words, f"{formula}, a {spelled(p)}")


def log_density(
    densities: Callable[..., tuple[Tensor, Tensor]],
    parts: Sequence[nn.Module],
    examples: Examples,
    words: Mapping[str, str],
    formulas: tuple[str, str],
) -> Program:
    """log p(x | z) and log p(z), in nats.

    Args:
        densities: Called with the inputs; returns both, each ``[n]``.
        parts: The modules that it calls.
        examples: Its inputs.
        words: What they are.
        formulas: What both densities are.
    """

    def outputs(*inputs: Tensor) -> dict[str, Tensor]:
        log_likelihood, log_prior = densities(*inputs)
        return {"log_likelihood": log_likelihood, "log_prior": log_prior.expand_as(log_likelihood)}

    likelihood, prior = formulas
    words = {**words, "log_likelihood": f"{likelihood} in nats", "log_prior": f"{prior} in nats"}
    return Program("log_likelihood", outputs, parts, examples, words, " and ".join(formulas))


def picked(examples: Examples, *names: str) -> Examples:
    """Those of the inputs that have these names."""
    few, one = ({name: each[name] for name in names} for each in examples)
    return few, one


def with_gaps(x: Tensor, support: Any) -> Tensor:
    """Data in which some values are missing, if the support of the likelihood has missing values."""
    gap = torch.full_like(x, torch.nan) if x.is_floating_point() else x
    if not gap.isnan().any() or not support.check(gap).all():
        return x
    return torch.where(torch.rand_like(x) < 0.2, gap, x)


def code_of(q: Any) -> Tensor:
    """The mean of a distribution; for a flow, the latent that it makes of the mean of its base.

    Raises:
        ExportError: If it is neither.
    """
    if _has_mean(q):
        return q.mean
    flow = _flow(q)
    return flow.transform.inv(flow.base.mean)


def with_code(q: Any) -> dict[str, Tensor]:
    """The code and the parameters of a posterior."""
    return {"code": code_of(q), **named_parameters(q)}


def _flow(q: Any) -> Any:
    flow, _ = split_independent(q)
    if isinstance(flow, zuko.distributions.NormalizingFlow):
        normal, _ = split_independent(flow.base)
        if isinstance(normal, torch.distributions.Normal):
            return flow
    raise ExportError(
        f"the encoder cannot be exported: its distribution, {spelled(q)}, has no mean in closed form and is not a flow "
        "of zuko with a normal base"
    )


def _has_mean(distribution: Any) -> bool:
    try:
        return isinstance(distribution.mean, Tensor)
    except NotImplementedError:
        return False


def spelled(distribution: Any) -> str:
    """The name of a distribution, with those of the distributions inside it."""
    base, _ = split_independent(distribution)
    public = next(kind.__name__ for kind in type(base).__mro__ if not kind.__name__.startswith("_"))
    name = type(base).__name__.lstrip("_") if public == "TorchDistribution" else public
    inside = ["complete", "base", "component_distribution", "columns"]
    inside += ["base_dist"] if name == "ZeroInflatedDistribution" else []
    inner = next((getattr(base, each) for each in inside if hasattr(base, each)), None)
    if inner is None:
        return name
    return f"{name}({', '.join(map(spelled, inner if isinstance(inner, list) else [inner]))})"
