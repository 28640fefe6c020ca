"""Bounds on mutual information, marginal KL and total correlation, where all three are known."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch.testing import assert_close

from pyro_vae import evidence
from pyro_vae.evidence.diagnostics.decomposition import aggregate_posterior
from pyro_vae.evidence.diagnostics.decomposition.aggregate_posterior import aggregate_densities
from pyro_vae.evidence.diagnostics.decomposition.information_bounds import Bounds, InformationBounds
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.infer.losses.beta_tc import total_correlation


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[1], dtype=x.dtype), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def guide_of(noise):
    """q(z | x) = N(x, noise^2 I): for normal data, q(z) is a normal too."""

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, noise).to_event(1))

    return guide


def data_and_truth(n, covariance, noise):
    """Data from N(0, covariance), and what is true of all such data."""
    size = len(covariance)
    x = dist.MultivariateNormal(torch.zeros(size).double(), covariance).sample((n,))
    marginal = covariance + noise**2 * torch.eye(size)
    half = torch.logdet(marginal).item() / 2
    return x, InformationBounds(
        *(
            half - size * math.log(noise),
            (marginal.trace().item() - size) / 2 - half,
            marginal.diagonal().log().sum().item() / 2 - half,
        )
    )


def bounds_of(parts):
    return parts.mutual_information_bounds, parts.marginal_kl_bounds, parts.total_correlation_bounds


def correlated(size, variance=0.9, correlation=0.0):
    return variance * ((1 - correlation) * torch.eye(size) + correlation).double()


EASY = {"covariance": correlated(2, correlation=0.6), "noise": 0.4}
MANY = {"covariance": correlated(20, 0.91), "noise": 0.3}  # a mutual information of 24, and q(z) is the prior
SHIFTED = {"covariance": correlated(20, 4.0, correlation=0.3), "noise": 0.3}


@pytest.mark.parametrize("case", [EASY, MANY, SHIFTED])
@pytest.mark.parametrize("n", [12, 100])
def test_the_truth_lies_between_the_bounds(case, n):
    """40 data sets; were each interval to miss 1 in 20, this would fail for 3 intervals once in 250 tests."""
    missed = torch.zeros(3)
    for _ in range(40):
        x, truth = data_and_truth(n, **case)
        parts = evidence.decompose_elbo(model, guide_of(case["noise"]), x, num_particles=2, progress=iter)
        missed += torch.tensor(
            [not low <= exact <= high for (low, high), exact in zip(bounds_of(parts), truth, strict=True)]
        )
    assert (missed <= 7).all(), missed


def test_enough_datapoints_enclose_it_closely():
    x, truth = data_and_truth(3000, **EASY)
    parts = evidence.decompose_elbo(model, guide_of(EASY["noise"]), x, num_particles=2)
    for (low, high), exact in zip(bounds_of(parts), truth, strict=True):
        assert low <= exact <= high
        assert high - low < 0.3
    assert "Note" not in parts.summary()


def test_where_the_number_of_datapoints_is_the_limit_the_summary_says_so():
    """The printed marginal KL was 17 where it is 0, with no word of a limit."""
    x, truth = data_and_truth(400, **MANY)
    parts = evidence.decompose_elbo(model, guide_of(MANY["noise"]), x, num_particles=2)
    assert parts.mutual_information == pytest.approx(math.log(400), abs=0.01)
    assert parts.mutual_information_bounds.lower <= math.log(400) < truth.mutual_information
    assert parts.mutual_information_bounds.upper < parts.rate + 1  # any prior gives an upper bound
    assert parts.marginal_kl_bounds.lower < 0.1
    assert f"at most {math.log(400):.3f}, the log of their number" in parts.summary()
    assert f"marginal KL(q(z) || p(z))       {parts.marginal_kl_bounds}" in parts.summary()


def test_what_a_normal_prior_would_save_is_seen_all_the_same():
    x, truth = data_and_truth(1000, **SHIFTED)
    parts = evidence.decompose_elbo(model, guide_of(SHIFTED["noise"]), x, num_particles=2)
    assert truth.marginal_kl > 15
    assert parts.marginal_kl_bounds.lower > truth.marginal_kl - 2
    assert parts.mutual_information_bounds.upper < truth.mutual_information + 2
    assert parts.total_correlation_bounds.lower > truth.total_correlation - 2


def test_further_datapoints_raise_the_limit():
    noise = 0.05
    x, truth = data_and_truth(100, correlated(2), noise)
    more, _ = data_and_truth(20_000, correlated(2), noise)
    alone, with_more = (
        evidence.decompose_elbo(model, guide_of(noise), x, more=further, num_particles=2) for further in (None, more)
    )
    assert "Note" in alone.summary()
    assert "Note" not in with_more.summary()
    assert alone.marginal_kl_bounds.upper > 1
    for (low, high), exact in zip(bounds_of(with_more), truth, strict=True):
        assert low <= exact <= high
        assert high - low < 0.9
    assert (with_more.num_datapoints, with_more.num_aggregated) == (100, 20_100)


def test_further_datapoints_are_others_and_of_the_same_kind():
    x = torch.randn(12, 2)
    for bad, message in (
        (torch.cat([torch.randn(5, 2), x]), "more has all 12 rows of x; expected other datapoints"),
        (x[:0], "expected .* with at least one datapoint"),
    ):
        with pytest.raises(ValueError, match=message):
            evidence.decompose_elbo(model, guide_of(0.5), x, more=bad)
    evidence.decompose_elbo(model, guide_of(0.5), x, more=torch.cat([torch.randn(5, 2), x[:11]]))


def test_the_file_of_a_run_without_further_datapoints_is_refused(tmp_path):
    x = torch.randn(12, 2)
    evidence.decompose_elbo(model, guide_of(0.5), x, keep=tmp_path / "run")
    with pytest.raises(ValueError, match="more"):
        evidence.decompose_elbo(model, guide_of(0.5), x, more=torch.randn(5, 2), keep=tmp_path / "run")


@pytest.mark.parametrize("with_more", [False, True])
def test_densities_are_those_of_a_loop(monkeypatch, with_more):
    monkeypatch.setattr(aggregate_posterior, "ROWS", 3)
    monkeypatch.setattr(aggregate_posterior, "PAIRS_AT_ONCE", 6)
    x, further = torch.randn(8, 2).double(), torch.randn(5, 2).double()
    draws, index = x + torch.randn(8, 2), torch.tensor([0, 2, 3, 6])
    programs = [Programs(model, guide_of(0.7), rows) for rows in (x, further)]
    found = aggregate_densities(programs[0], {"z": draws[:7]}, index, programs[1] if with_more else None)
    for row, i in enumerate(index.tolist()):
        every = [dist.Normal(rows, 0.7).log_prob(draws[i]) for rows in (x[:7], further)]  # the last row is not done yet
        own = every[0][i]
        others = torch.cat([every[0][:i], every[0][i + 1 :], *every[1 : 1 + with_more]])
        everyone = torch.cat([own[None], others])
        assert_close(found.own[row], own.sum())
        for result, units, each in (
            (found.others, found.units_others, others),
            (found.everyone, found.units_everyone, everyone),
        ):
            assert_close(result[row], each.sum(1).logsumexp(0) - math.log(len(each)))
            assert_close(units[row], each.logsumexp(0) - math.log(len(each)))


def test_the_normal_knows_nothing_of_the_draws_that_it_judges():
    """So that it is too low on average: in 30 dimensions, one fitted to these draws themselves is too high by far."""
    x = torch.randn(200, 30).double()
    programs = Programs(model, guide_of(0.1), x)
    found = aggregate_densities(programs, {"z": x}, torch.arange(200))
    exact = dist.Normal(0.0, 1.0).log_prob(x).sum(1)
    assert (found.normal - exact).mean() < 0
    assert abs((found.normal - exact).mean()) < 10


def test_a_guide_of_several_sites_or_dependent_units_has_no_total_correlation():
    def two_sites(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            y = pyro.sample("y", dist.Poisson(3.0))
            if x.ndim == 2:
                pyro.sample("x", dist.Normal(z + y[..., None], 1.0).to_event(1), obs=x)

    def its_guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(x, torch.eye(2)))
            pyro.sample("y", dist.Poisson(x[:, 0].exp()))

    parts = evidence.decompose_elbo(two_sites, its_guide, torch.randn(20, 2))
    assert parts.total_correlation_bounds is None
    assert "total correlation" not in parts.summary()
    assert all(math.isfinite(end) for bounds in bounds_of(parts)[:2] for end in bounds)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_few_datapoints_cannot_tell(n):
    x, _ = data_and_truth(n, **EASY)
    parts = evidence.decompose_elbo(model, guide_of(EASY["noise"]), x)
    assert bounds_of(parts) == (Bounds(0.0, math.inf),) * 3
    assert "Neither is known" in parts.summary()
    assert "nan" not in parts.summary()


def test_the_estimate_of_a_batch_is_off_in_both_directions():
    """What the docs of BetaTC say of it: independent units, of which the total correlation is 0."""
    found = {}
    for size, noise in ((5, 0.3), (50, 0.7)):
        loc = (1 - noise**2) ** 0.5 * torch.randn(20, 128, size).double()
        batches = [dist.Normal(each, torch.full_like(each, noise)) for each in loc]
        found[size] = torch.stack([total_correlation(q, q.sample(), 60_000).mean() for q in batches]).mean().item()
    assert found[5] == pytest.approx(-1.4, abs=0.15)
    assert found[50] == pytest.approx(7.1, abs=0.5)
