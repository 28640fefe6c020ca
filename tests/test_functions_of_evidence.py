"""Every public function of evidence on few datapoints: numbers, or a sentence why there are none; and no warnings.

With 1, 2 and 10 datapoints, in float32 and float64, of one latent site and of several, with and without missing values.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import warnings
from itertools import product

import pyro
import pytest
import torch
from pyro import distributions as dist

from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors
from pyro_vae.weights import find_layout

PIXELS = 4


def one_site(dtype):
    likelihood = likelihoods.Incomplete(likelihoods.Normal(nn.mlp(2, [4], PIXELS), 1.0))
    vae = VAE(priors.StandardNormal(2), likelihood, posteriors.Normal(nn.FillMissing(nn.mlp(PIXELS, [4], 4)))).to(dtype)
    return vae.model, vae.guide


def several_sites(dtype):
    """A scalar, a positive number, and a vector in a plate of its own."""
    one = torch.ones((), dtype=dtype)

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            a = pyro.sample("a", dist.Normal(0 * one, 1.0))
            scale = pyro.sample("scale", dist.LogNormal(0 * one, 0.5))
            with pyro.plate("pixels", PIXELS, dim=-1):
                b = pyro.sample("b", dist.Normal(a, 0.5))
                pyro.sample("x", likelihoods.Incomplete(lambda b: dist.Normal(b, scale))(b), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            mean = x.nan_to_num().mean(-1, keepdim=True)
            a = pyro.sample("a", dist.Normal(mean / 2, 0.8))
            pyro.sample("scale", dist.LogNormal(0 * one, 0.5))
            with pyro.plate("pixels", PIXELS, dim=-1):
                pyro.sample("b", dist.Normal(a, 0.5))

    return model, guide


def data(n, dtype, missing):
    x = torch.randn(n, PIXELS, dtype=dtype)
    return x.masked_fill(torch.rand(n, PIXELS) < 0.5, torch.nan) if missing else x


def weigh(proposal, model, guide, x):
    return proposal(model, guide, x, 30, find_layout(model, guide, x)).log_weights


QUIET = {"progress": iter}
PATH = {"num_chains": 4, "num_temperatures": 3, "num_leapfrog": 2, **QUIET}
CALLS = {
    "annealed": lambda *args: evidence.annealed(*args, **PATH),
    "calibrate": lambda *args: evidence.calibrate(*args, num_draws=9, **QUIET),
    "check_elbo": lambda *args: evidence.check_elbo(*args, **QUIET),
    "compare": lambda *args: evidence.compare(
        *(evidence.importance(*args, num_samples=k, **QUIET) for k in (300, 400))
    ),
    "compare_with_nuts": lambda *args: evidence.compare_with_nuts(*args, num_samples=4, warmup_steps=4, **QUIET),
    "decompose_elbo": lambda *args: evidence.decompose_elbo(*args, **QUIET),
    "defensive": lambda *args: weigh(evidence.defensive(0.5), *args),
    "estimate": lambda *args: evidence.estimate(*args, certify=len(args[-1]), tolerance=0.3, **QUIET),
    "importance": lambda *args: evidence.importance(*args, num_samples=300, **QUIET),
    "impute": lambda *args: evidence.impute(*args, num_samples=4, **QUIET),
    "inference_gap": lambda *args: evidence.inference_gap(
        *args, num_steps=10, max_rounds=1, num_samples=50, tolerance=0.3, **QUIET
    ),
    "laplace": lambda *args: evidence.importance(*args, num_samples=50, proposal=evidence.laplace(), **QUIET),
    "sandwich": lambda *args: evidence.sandwich(*args, **PATH),
    "to_arviz": lambda *args: evidence.to_arviz(*args, num_draws=16, **QUIET),
    "widened": lambda *args: weigh(evidence.widened(1.5), *args),
}
SLOW = ("annealed", "compare_with_nuts", "estimate", "impute", "inference_gap", "sandwich", "to_arviz")
# A sentence in the place of a result.
REFUSALS = {
    ("calibrate", one_site): r"x has \d+ datapoints?, too few for their ranks to tell; expected at least 50",
    ("calibrate", several_sites): r"x has \d+ datapoints?, too few for their ranks to tell; expected at least 50",
    ("inference_gap", several_sites): "site 'b' of the guide has random parameters: they depend on other latents",
    ("widened", several_sites): "site 'scale' of the guide has support .*; only a real one can be widened",
}
# Numbers that need not be finite, as their docstrings say, and what the summary has in their place.
NOT_KNOWN = {
    "Evidence.error": "not known",
    "Evidence.bias": "not known",
    "Evidence.mean_error": "not known",
    "Evidence.settled_mean_error": "a lower bound",
    "Evidence.acceptance": "method",  # where there were no chains
    "Evidence.pareto_k": "not known",
    "Comparison.mean": "not known",
    "Comparison.error": "only a lower bound",
    "Comparison.bias": "only a lower bound",
    "Comparison.mean_error": "not known",
    "NutsComparison.r_hat": "its chains never moved",
    "NutsComparison.shift": "its chains never moved",
    "NutsComparison.shift_std_error": "its chains never moved",
    "NutsComparison.sd_ratio": "its chains never moved",
    "NutsComparison.sd_ratio_std_error": "its chains never moved",
    "ElboDecomposition.mutual_information_bounds": "Neither is known",
    "ElboDecomposition.marginal_kl_bounds": "Neither is known",
    "ElboDecomposition.total_correlation_bounds": "Neither is known",
    "InferenceGap.approximation": "not known",
    "InferenceGap.amortization": "not known",
}
# Of one datapoint there is no spread: infinite, and no number in the summary.
OF_SPREAD = {
    "Evidence.population_std_error",
    "Certificate.gap_std_error",
    "Sandwich.gap_std_error",
    "Comparison.population_std_error",
    "Comparison.population_error",
}


def test_every_public_function_is_tried():
    assert set(CALLS) == {name for name in evidence.__all__ if inspect.isfunction(getattr(evidence, name))}


def is_result(value):
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def numbers_of(value, name):
    """Every number there is, ``[...]``, with the name of the field or property: however deep, but not in results."""
    if isinstance(value, torch.Tensor):
        yield name, value.detach().double().cpu()
    elif isinstance(value, int | float):
        yield name, torch.tensor(float(value))
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from numbers_of(each, name)


def results_in(value):
    """A result and those in its fields, by the names of their types; a bare tensor is one, too."""
    if isinstance(value, torch.Tensor):
        return [("tensor", {"values": value}, "")]
    if not is_result(value):  # ArviZ's
        groups = ("posterior", "log_likelihood", "posterior_predictive", "constant_data")
        return [
            (group, {n: torch.as_tensor(v.values) for n, v in value[group].data_vars.items()}, "") for group in groups
        ]
    kind = type(value)
    names = [field.name for field in dataclasses.fields(value)]
    names += [name for name, each in inspect.getmembers(kind) if isinstance(each, property)]
    fields = {name: getattr(value, name) for name in names if not name.startswith("_")}
    found = [(kind.__name__, fields, value.summary())]
    return found + [each for field in fields.values() if is_result(field) for each in results_in(field)]


def cases():
    """Of a function, a number of datapoints, a kind of programs, and with or without missing values: all of them.

    Of those that take long, half: any two values of different things still meet. That goes for the dtype, too.
    """
    for name, n, (missing, programs) in product(CALLS, (1, 2, 10), product((False, True), (one_site, several_sites))):
        dtype = torch.float64 if missing != (n == 10) else torch.float32
        if name not in SLOW or (missing == (programs is several_sites)) != (n == 2):
            yield pytest.param(
                name, n, programs, missing, dtype, id=f"{name}-{n}-{programs.__name__}-{missing}-{dtype}"
            )


@pytest.mark.parametrize(("name", "n", "programs", "missing", "dtype"), list(cases()))
def test_numbers_or_a_sentence(name, n, programs, missing, dtype):
    x = data(n, dtype, missing)
    with warnings.catch_warnings():
        for kind in (UserWarning, RuntimeWarning):  # torch's and numpy's
            warnings.simplefilter("error", kind)
        warnings.filterwarnings("ignore", "for .* datapoints, the draws may not be from the posterior")  # a sentence
        if (name, programs) in REFUSALS:
            with pytest.raises(ValueError, match=REFUSALS[name, programs]):
                CALLS[name](*programs(dtype), x)
            return
        result = CALLS[name](*programs(dtype), x)
        results = results_in(result)
        words = [str(result), getattr(result, "_repr_html_", str)()] if is_result(result) else []
        if hasattr(result, "plot"):
            result.plot()
    for kind, fields, summary in results:
        for field, value in fields.items():
            for where, numbers in numbers_of(value, f"{kind}.{field}"):
                if where == "Sandwich.x":  # of which the same values are missing
                    assert torch.equal(numbers.isnan(), x.isnan())
                elif where in ("Imputation.ess", "Imputation.pareto_k"):  # of datapoints in which something was missing
                    assert torch.equal(numbers.isfinite(), fields["missing"].flatten(1).any(1))
                elif where == "Evidence.elbo":  # minus infinity where a sample weighs nothing
                    assert (numbers < torch.inf).all()
                elif where == "posterior_predictive.x" or numbers.isfinite().all():
                    continue
                elif where in OF_SPREAD:
                    count = int(fields["settled"].sum()) if kind == "Comparison" else n
                    assert count <= 1, where
                else:
                    assert where in NOT_KNOWN, f"{where} is {numbers}"
                    assert NOT_KNOWN[where] in summary, f"{where} is {numbers}, and the summary is\n{summary}"
    for text in words:
        text = re.sub("R-hat of up to (nan|inf)", "", text)  # in a sentence that says that chains never moved
        assert not re.search(r"\b(nan|inf)\b", text, re.IGNORECASE), text
