"""The guide beside NUTS: posteriors that are known, and guides that are wrong in known ways.

Where errors are in Monte Carlo standard errors, 5 of them are exceeded 6 times in 10^7.
"""

from __future__ import annotations

import dataclasses
import warnings

import matplotlib as mpl
import pyro
import pytest
import torch
from linear_gaussian import exact_posterior, random_instance
from pyro import distributions as dist
from pyro import poutine
from pyro.infer.mcmc.util import initialize_model
from torch import nn
from torch.testing import assert_close

from pyro_vae.evidence import Interrupted, NutsComparison, compare_with_nuts
from pyro_vae.evidence.diagnostics.nuts.computation import _diagnostics
from pyro_vae.evidence.diagnostics.nuts.potential import fast_potential

SHORT = {"num_samples": 10, "warmup_steps": 10}
# Of the guide for each row of the linear-Gaussian model, in standard deviations of the posterior.
SHIFT = torch.tensor([0.0, 0.5, 0.0, -0.5], dtype=torch.float64)
WIDEN = torch.tensor([1.0, 0.6, 0.6, 1.7], dtype=torch.float64)


@pytest.fixture(scope="module")
def linear_gaussian():
    """A comparison on the linear-Gaussian model, and the exact posterior. Only the guide of row 0 is right."""
    torch.manual_seed(1)
    vae, x = random_instance(seed=5, latent=2, event=4, n=4)
    exact = exact_posterior(vae.likelihood, x)

    def guide(x):
        with pyro.plate("data", len(x)):
            q = exact_posterior(vae.likelihood, x)
            loc = q.loc + SHIFT[:, None] * q.variance.sqrt()
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=WIDEN[:, None, None] * q.scale_tril))

    return compare_with_nuts(vae.model, guide, x, num_samples=400, warmup_steps=80), exact


def two_sites(x):
    """A positive latent of the counts x[:, 0], and a plate of latents of x[:, 1:], all of it scaled."""
    with pyro.plate("data", len(x), dim=-1), poutine.scale(scale=torch.tensor(9.0)):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
        pyro.sample("counts", dist.Poisson(rate), obs=x[:, 0])
        with pyro.plate("features", 2, dim=-2):
            v = pyro.sample("v", dist.Normal(torch.zeros(2, 1), 1.0).expand([2, len(x)]))
            pyro.sample("x", dist.Normal(v, 0.5), obs=x[:, 1:].T)


def two_sites_guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("rate", dist.Gamma(2 + x[:, 0], 2.0))
        with pyro.plate("features", 2, dim=-2):
            pyro.sample("v", dist.Normal(0.8 * x[:, 1:].T, 0.2**0.5))


TWO_SITES_X = torch.tensor([[0.0, 1.0, -1.0], [7.0, 0.2, 2.0]])


def test_nuts_finds_the_exact_posterior(linear_gaussian):
    result, exact = linear_gaussian
    sd = exact.variance.sqrt().detach()
    error = (result.nuts_mean["z"] - exact.mean.detach()) / sd
    assert (error.abs() < 5 / result.ess["z"].sqrt()).all()
    assert ((result.nuts_sd["z"] / sd - 1).abs() < 5 / (2 * result.ess_sd["z"]).sqrt()).all()
    assert (result.ess["z"] > 100).all()
    assert (result.r_hat["z"] < 1.05).all()
    assert result.nuts["z"].shape == result.guide["z"].shape == (2, 400, 4, 2)
    assert not result.diverging.any()


def test_what_is_wrong_with_the_guide_is_found(linear_gaussian):
    result, _ = linear_gaussian
    shift, ratio = result.shift["z"], result.sd_ratio["z"]
    assert ((shift - SHIFT[:, None]).abs() < 5 * result.shift_std_error["z"]).all()
    assert ((ratio - WIDEN[:, None]).abs() < 5 * result.sd_ratio_std_error["z"]).all()
    assert (result.shift_std_error["z"] < 0.1).all()  # so that half a standard deviation is seen
    assert (result.sd_ratio_std_error["z"] < 0.12).all()
    assert not result.passed
    summary = result.summary()
    assert "differs from NUTS" in summary
    assert "beyond Monte Carlo error for 4" in summary
    assert "narrower for 4 and wider for 2" in summary


def test_constrained_latents_plates_and_scales():
    """Exact guides of two sites in different plates agree with NUTS; scales are no part of the posterior."""
    result = compare_with_nuts(two_sites, two_sites_guide, TWO_SITES_X, num_samples=300, warmup_steps=80)
    assert {name: list(shift.shape) for name, shift in result.shift.items()} == {"rate": [2, 1], "v": [2, 2]}
    assert "differs from NUTS" not in result.summary()
    assert (result.nuts["rate"] > 0).all()
    posterior = dist.Gamma(2 + TWO_SITES_X[:, :1], 2.0)
    for mean, sd in ((result.nuts_mean, result.nuts_sd), (result.guide_mean, result.guide_sd)):
        assert_close(mean["rate"], posterior.mean, rtol=0.2, atol=0)
        assert_close(sd["rate"], posterior.variance.sqrt(), rtol=0.3, atol=0)
        assert_close(mean["v"], 0.8 * TWO_SITES_X[:, 1:], rtol=0, atol=0.2)
        assert_close(sd["v"], torch.full((2, 2), 0.2**0.5), rtol=0.3, atol=0)


def two_regimes(x):
    """Decides by the value of a latent, so that it cannot be recorded."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
        pyro.sample("x", dist.Normal(z if z.sum() > 0 else 2 * z, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "x", "is_recorded"),
    [(two_sites, TWO_SITES_X, True), (two_regimes, torch.tensor([0.3, -1.0]), False)],
)
def test_the_potential_is_pyros_with_its_gradient(model, x, is_recorded):
    start, potential, _, _ = initialize_model(model, (x,))
    calls = []

    def counted(latents):
        calls.append(latents)
        return potential(latents)

    fast = fast_potential(counted, start)
    calls.clear()
    for shift in (0.0, 0.7, -2.0):
        latents = {name: (value + shift).requires_grad_() for name, value in start.items()}
        expected, energy = potential(latents), fast(latents)
        assert_close(energy, expected)
        gradients = [torch.autograd.grad(3 * each, list(latents.values())) for each in (energy, expected)]
        assert_close(*gradients)
    assert bool(calls) != is_recorded


def test_nothing_is_left_behind(vae, x):
    """Neither gradients nor changed parameters, store or switches; and it works where gradients are off."""
    vae.likelihood.network[0].bias.requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in vae.named_parameters()}
    trainable = [parameter.requires_grad for parameter in vae.parameters()]
    vae.model(x)
    vae.guide(x)
    store = {name: id(value) for name, value in pyro.get_param_store().items()}
    with pyro.validation_enabled(False), torch.no_grad():
        compare_with_nuts(vae.model, vae.guide, x, **SHORT)
        assert not pyro.infer.util.is_validation_enabled()
        assert not torch.is_grad_enabled()
    compare_with_nuts(vae.model, vae.guide, x, **SHORT)
    assert pyro.infer.util.is_validation_enabled()
    assert torch.is_grad_enabled()
    assert {name: id(value) for name, value in pyro.get_param_store().items()} == store
    assert [parameter.requires_grad for parameter in vae.parameters()] == trainable
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert all(torch.equal(before[name], parameter) for name, parameter in vae.named_parameters())


def test_parameters_of_a_function_are_constants():
    def model(x):
        scale = pyro.param("scale", torch.tensor(2.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, scale)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * x, 0.8**0.5))

    result = compare_with_nuts(model, guide, torch.zeros(2), **SHORT)
    assert list(result.nuts) == ["z"]
    assert {name: value.item() for name, value in pyro.get_param_store().items()} == {"scale": 2.0}


def test_same_seed_same_draws():
    first, again, other = (_seeded(seed) for seed in (3, 3, 4))
    assert torch.equal(first.nuts["v"], again.nuts["v"])
    assert torch.equal(first.guide["v"], again.guide["v"])
    assert not torch.equal(first.nuts["v"], other.nuts["v"])
    assert not torch.equal(first.nuts["v"][0], first.nuts["v"][1])  # nor are two chains the same


def _seeded(seed):
    torch.manual_seed(seed)
    return compare_with_nuts(two_sites, two_sites_guide, TWO_SITES_X, **SHORT)


def test_progress_wraps_all_steps_of_all_chains():
    seen = []

    def progress(steps):
        for step in steps:
            seen.append(step)
            yield step
        seen.append("end")

    compare_with_nuts(two_sites, two_sites_guide, TWO_SITES_X, num_chains=3, progress=progress, **SHORT)
    assert seen == [*range(60), "end"]


def by_hand(shift=0.0, widen=1.0, between=0.0, draws=1000, diverging=()):
    """A comparison of independent draws from normals, with chains that lie apart."""
    nuts = torch.randn(2, draws, 3, dtype=torch.float64) + between * torch.tensor([-0.5, 0.5])[:, None, None]
    guide = shift + widen * torch.randn(2, draws, 3, dtype=torch.float64)
    ess = {"z": torch.full((3,), 2.0 * draws, dtype=torch.float64)}
    marks = torch.zeros(2, draws, dtype=torch.bool)
    marks[0, list(diverging)] = True
    return NutsComparison({"z": nuts}, {"z": guide}, ess, ess, {"z": torch.ones(3)}, marks)


@pytest.mark.parametrize(("steps", "done"), [(25, 1), (45, 2)])
def test_ctrl_c_leaves_the_chains_that_were_done(steps, done):
    def progress(sequence):
        for i, step in enumerate(sequence):
            if i == steps:
                raise KeyboardInterrupt
            yield step

    with pytest.raises(Interrupted, match=f"{done} of 3 chains were done") as caught:
        compare_with_nuts(two_sites, two_sites_guide, TWO_SITES_X, num_chains=3, progress=progress, **SHORT)
    if done == 1:  # which there is nothing to compare with
        assert caught.value.result is None
    else:
        assert caught.value.result.diverging.shape == (2, 10)
        assert caught.value.result.guide["v"].shape == caught.value.result.nuts["v"].shape


def test_standard_errors_are_those_of_repetition():
    """Over 400 repetitions of 3 coordinates: within 15%, more than 5 times the error of a standard deviation."""
    results = [by_hand(shift=0.4, widen=1.5, draws=100) for _ in range(400)]
    shift = torch.cat([result.shift["z"] for result in results])
    ratio = torch.cat([result.sd_ratio["z"] for result in results])
    assert shift.mean().item() == pytest.approx(0.4, abs=0.03)
    assert ratio.mean().item() == pytest.approx(1.5, abs=0.03)
    for values, error in ((shift, "shift_std_error"), (ratio, "sd_ratio_std_error")):
        reported = torch.cat([getattr(result, error)["z"] for result in results]).mean().item()
        assert reported == pytest.approx(values.std().item(), rel=0.15)


def test_doubts_about_nuts_itself():
    fine = by_hand()
    assert fine.converged
    assert "WARNING" not in fine.summary()
    diverged = by_hand(diverging=[3, 8])
    assert diverged.doubts == ("2 of its 2000 transitions diverged",)
    assert "WARNING: NUTS has not converged: 2 of its 2000 transitions diverged." in diverged.summary()
    assert not diverged.converged
    for name, values, message in (
        ("r_hat", [1.0, 1.02, 1.0], "an R-hat of up to 1.020"),
        ("r_hat", [1.0, torch.nan, 1.0], "an R-hat of up to nan"),
        ("ess", [900.0, 900.0, 399.0], "as low as 399"),
        ("ess_sd", [12.0, 900.0, 900.0], "as low as 12"),
    ):
        changed = dataclasses.replace(fine, **{name: {"z": torch.tensor(values)}})
        assert not changed.converged
        assert message in changed.summary()


def test_of_chains_that_never_moved_nothing_is_known():
    """And no warning of numpy comes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draws = torch.randn(2, 8, 3)
        draws[:, :, 1] = torch.tensor([[0.5], [0.7]])
        draws[:, :, 2] = 0.5
        guide = {"z": draws[..., :1] + torch.zeros(3)}
        found = _diagnostics({"z": draws})
        result = NutsComparison({"z": draws}, guide, **found, diverging=torch.zeros(2, 8, dtype=torch.bool))
        assert not result.passed
        assert result.summary().startswith("not known whether")
        assert "its chains never moved in 2 of 3 latent coordinates" in result.summary()


def test_a_short_run_is_not_believed():
    assert not _seeded(0).converged


def test_divergences_are_marked_where_they_are():
    """A cliff that no step size is small enough for: the density falls to nothing where the gradient is zero."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(torch.where(z.abs() > 0.5, 1e3, 0.0), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(-0.5 * torch.ones(len(x)), 0.5))

    result = compare_with_nuts(model, guide, torch.zeros(2), num_samples=30, warmup_steps=20)
    assert 0 < result.diverging.sum() < 60
    assert "transitions diverged" in result.summary()
    assert (result.nuts["z"].abs() <= 0.5).all()


def test_to_arviz():
    import arviz

    result = _seeded(0)
    data = result.to_arviz()
    posterior = data["posterior"]
    assert posterior["v"].dims == ("chain", "draw", "datapoint", "v_dim_0", "source")
    for source, draws in (("NUTS", result.nuts), ("q", result.guide)):
        assert_close(torch.as_tensor(posterior["v"].sel(source=source).values), draws["v"])
    assert dict(data["sample_stats"]["diverging"].sizes) == {"chain": 2, "draw": 10}
    assert len(arviz.summary(data)) == 2 * (2 + 4)
    with mpl.rc_context({"backend": "agg"}):
        drawn = arviz.plot_forest(data, var_names=["v"], backend="matplotlib")
    figure = drawn.viz["figure"].item() if hasattr(drawn, "viz") else drawn.ravel()[0].figure
    assert sum(len(axes.lines) + len(axes.collections) for axes in figure.axes) >= 8


def discrete(x):
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.5)))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)


def discrete_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Bernoulli(torch.full((len(x),), 0.5)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": TWO_SITES_X.tolist()}, TypeError, "x has batches of"),
        ({"x": TWO_SITES_X[:0]}, ValueError, "at least one datapoint"),
        ({"x": TWO_SITES_X + 0.5}, ValueError, "support"),
        ({"num_samples": 3}, ValueError, "num_samples is 3"),
        ({"warmup_steps": 0}, ValueError, "warmup_steps is 0"),
        ({"num_chains": 1}, ValueError, "num_chains is 1; expected an integer of at least 2"),
        ({"guide": discrete_guide}, ValueError, "'rate' of the model is not in the guide"),
        (
            {"model": discrete, "guide": discrete_guide, "x": torch.ones(2)},
            ValueError,
            "site 'k' of the model is discrete",
        ),
    ],
)
def test_bad_input_is_named(options, error, message):
    with pytest.raises(error, match=message):
        compare_with_nuts(**{"model": two_sites, "guide": two_sites_guide, "x": TWO_SITES_X, **SHORT, **options})


def test_dropout_must_be_off(vae, x):
    vae.likelihood.network = nn.Sequential(nn.Dropout(0.5), vae.likelihood.network)
    with pytest.raises(ValueError, match=r"another log-density at every call.*\.eval\(\)"):
        compare_with_nuts(vae.model, vae.guide, x, **SHORT)
    vae.eval()
    assert compare_with_nuts(vae.model, vae.guide, x, **SHORT).nuts["z"].shape == (2, 10, 7, 2)


@pytest.mark.parametrize(
    ("shift", "r_hat", "passed", "words", "verdict"),
    [
        (0.0, 1.0, True, "q(z | x) agrees with NUTS", "<td>yes</td>"),
        (1.0, 1.0, False, "q(z | x) differs from NUTS", "<td>no</td>"),
        (1.0, 1.1, False, "q(z | x) differs from NUTS", "<td>no</td>"),
        (0.0, 1.1, False, "not known whether q(z | x) agrees with NUTS", "<td>not known: NUTS has not converged</td>"),
    ],
)
def test_agreement_with_chains_that_have_not_converged_is_not_known(shift, r_hat, passed, words, verdict):
    nuts, guide = ({"z": torch.randn(4, 500, 2, 3)} for _ in range(2))
    guide["z"] += shift
    ess = {"z": torch.full((2, 3), 2000.0)}
    result = NutsComparison(nuts, guide, ess, ess, {"z": torch.full((2, 3), r_hat)}, torch.zeros(4, 500).bool())
    assert result.passed is passed
    assert result.summary().startswith(words)
    assert verdict in result._repr_html_()
