"""Active units: how often chance makes one, and what few datapoints can tell."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch.distributions import AffineTransform

from pyro_vae import evidence
from pyro_vae.evidence.diagnostics.decomposition.activity import activity, mean_or_draw

UNITS = 50


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(UNITS), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 0.1), obs=x)


def guide_of(active, *, has_mean):
    """q(z | x): the first units say all of x, the others nothing. As a flow, it has no mean in closed form."""

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = torch.zeros(len(x), UNITS)
            loc[:, :active] = x[:, None]
            scale = torch.ones(UNITS)
            scale[:active] = 0.1
            if has_mean:
                pyro.sample("z", dist.Normal(loc, scale).to_event(1))
            else:
                noise = dist.Normal(torch.zeros_like(loc), 1.0)
                pyro.sample("z", dist.TransformedDistribution(noise, AffineTransform(loc, scale)).to_event(1))

    return guide


@pytest.mark.parametrize("has_mean", [True, False])
@pytest.mark.parametrize("num_particles", [2, 16])
@pytest.mark.parametrize("n", [1, 2, 10, 100])
def test_a_unit_that_says_nothing_is_not_active_by_chance(n, num_particles, has_mean):
    """Where the means are estimated, noise alone made up to a third of such units active."""
    for seed in range(5):
        torch.manual_seed(seed)
        parts = evidence.decompose_elbo(
            model, guide_of(1, has_mean=has_mean), torch.randn(n), num_particles=num_particles, num_marginal=2
        )
        assert not parts.active["z"][1:].any()
        assert not parts.inactive["z"][0]


@pytest.mark.parametrize("has_mean", [True, False])
@pytest.mark.parametrize("n", [1, 2, 10, 100])
def test_no_collapse_where_all_units_are_active(n, has_mean):
    parts = evidence.decompose_elbo(model, guide_of(UNITS, has_mean=has_mean), torch.randn(n), num_marginal=2)
    assert not parts.collapsed
    assert not parts.inactive["z"].any()
    assert "WARNING" not in parts.summary()
    assert parts.active["z"].all() or n < 10
    assert n > 1 or not parts.active["z"].any()
    assert n > 1 or f"0 of {UNITS}; {UNITS} more are not known, with so few datapoints and particles" in parts.summary()


def test_collapse_is_found_as_soon_as_the_data_can_tell():
    collapsed = {
        (n, has_mean): evidence.decompose_elbo(
            model, guide_of(1, has_mean=has_mean), torch.randn(n), num_marginal=2
        ).collapsed
        for n in (1, 2, 20, 5000)
        for has_mean in (True, False)
    }
    assert {key for key, found in collapsed.items() if found} == {(20, True), (5000, True), (5000, False)}


@pytest.mark.parametrize(("n", "num_particles"), [(2, None), (5, None), (10, None), (100, None), (10, 4), (100, 16)])
def test_at_the_threshold_it_is_four_standard_errors(n, num_particles):
    """Of 20000 units that vary by 0.01, one is called what it is not; 12 in none of 10^9 tests."""
    units, spread = 20_000 if num_particles != 16 else 4000, 1.0
    means = 0.1 * torch.randn(n, units).double()
    if num_particles is None:
        noise = torch.zeros_like(means)
    else:
        draws = means + spread * torch.randn(num_particles, n, units)
        means, noise = draws.mean(0), draws.var(0) / num_particles
    found = activity(means, noise, num_particles or 2)
    assert found.active.sum() < 12
    assert found.inactive.sum() < 12
    off = found.variance.mean() - 0.01  # what noise takes below zero is zero
    assert -0.001 < off < 0.1 * (n == 2 or num_particles is not None) + 0.001


@pytest.mark.parametrize(
    "q",
    [
        dist.ProjectedNormal(torch.full((3, 2), 1e-6)),
        dist.VonMises(torch.tensor([-2.0, 0.0, 2.0]), 1e-6),
        dist.Cauchy(torch.ones(3), 1.0),
        dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0), AffineTransform(1.0, 2.0)),
    ],
)
def test_what_is_called_a_mean_and_is_none_is_not_taken(q):
    """A distribution on a circle that is nearly uniform has a mean near 0, whatever it calls its mean."""
    draw = q.sample()
    assert mean_or_draw({"fn": q, "value": draw}) is draw


@pytest.mark.parametrize(
    "q",
    [dist.Normal(1.0, 1.0), dist.Beta(2.0, 3.0), dist.LogNormal(0.0, 0.5), dist.Gamma(2.0, 1.5), dist.Bernoulli(0.3)],
)
def test_means_are_those_of_draws(q):
    q = q.expand((3,)).to_event(1).expand((40_000,))
    draws = q.sample()
    means = mean_or_draw({"fn": q, "value": draws})
    assert (means == means[0]).all()
    assert ((draws.mean(0) - means[0]).abs() < 5 * draws.std(0) / 200).all()


def test_one_datapoint_tells_nothing():
    found = activity(torch.full((1, 3), 5.0), torch.zeros(1, 3), 16)
    assert not found.active.any()
    assert not found.inactive.any()
    assert math.isfinite(found.variance.sum())
