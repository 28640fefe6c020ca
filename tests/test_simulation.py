"""Data of the model's own making have the same values missing as x, so that what is tried on them is tried on gaps too.

On the linear-Gaussian model, of which the posterior and log p(x) given any part of x are known.
"""

from __future__ import annotations

import pyro
import pytest
import torch
from linear_gaussian import LinearLikelihood
from pyro import distributions as dist
from pyro import poutine
from torch import nn
from torch.testing import assert_close

from pyro_vae import VAE, evidence, likelihoods, priors
from pyro_vae.evidence.estimators.simulation import simulate
from pyro_vae.weights import find_layout

LATENT, EVENT, SCALE = 2, 6, 0.5


class GivenObserved(nn.Module):
    """The exact posterior given what was observed; or a wrong one, that takes what is missing for zero."""

    def __init__(self, likelihood, zeros=False):
        super().__init__()
        self.likelihood, self.zeros = likelihood, zeros

    def forward(self, x):
        weight, bias = self.likelihood.weight, self.likelihood.bias
        there = torch.ones_like(x) if self.zeros else (~x.isnan()).to(x.dtype)
        precision = (
            torch.eye(LATENT, dtype=x.dtype) + torch.einsum("...e,ei,ej->...ij", there, weight, weight) / SCALE**2
        )
        covariance = torch.linalg.inv(precision)
        residual = (x.nan_to_num() - bias) * there
        return dist.MultivariateNormal(
            torch.einsum("...ij,ej,...e->...i", covariance, weight, residual) / SCALE**2, covariance
        )


def make_vae(zeros=False):
    torch.manual_seed(3)
    likelihood = LinearLikelihood(torch.randn(EVENT, LATENT).double(), torch.zeros(EVENT).double(), SCALE)
    posterior = GivenObserved(likelihood, zeros)
    return VAE(priors.StandardNormal(LATENT).double(), likelihoods.Incomplete(likelihood), posterior)


def with_gaps(vae, n, share=0.5):
    x = vae.sample(n)
    x = x.masked_fill(torch.rand(x.shape) < share, torch.nan)
    x[0] = torch.nan  # nothing was observed
    return x


@torch.no_grad()
def exact_log_prob(vae, x):
    likelihood = vae.likelihood.likelihood
    covariance = likelihood.weight @ likelihood.weight.mT + SCALE**2 * torch.eye(EVENT)
    values = []
    for row in x:
        there = ~row.isnan()
        normal = dist.MultivariateNormal(torch.zeros(int(there.sum())).double(), covariance[there][:, there])
        values.append(normal.log_prob(row[there]) if there.any() else torch.zeros(()).double())
    return torch.stack(values)


def test_what_is_missing_of_x_is_missing_of_what_is_drawn():
    vae = make_vae()
    x = with_gaps(vae, 40)
    drawn = simulate(vae.model, vae.guide, x, find_layout(vae.model, vae.guide, x)).x
    assert torch.equal(drawn.isnan(), x.isnan())
    assert not (drawn == x).any()


def test_a_guide_that_is_wrong_about_gaps_is_found_out():
    """It is exact on complete data. False alarm: 1 in 10^4 for each of three; the wrong guide has p < 1e-20."""
    right, wrong = make_vae(), make_vae(zeros=True)
    complete = right.sample(400)
    gaps = with_gaps(right, 400)
    assert not evidence.calibrate(right.model, right.guide, complete).departures(1e-4)
    assert not evidence.calibrate(right.model, wrong.guide, complete).departures(1e-4)
    assert not evidence.calibrate(right.model, right.guide, gaps).departures(1e-4)
    result = evidence.calibrate(right.model, wrong.guide, gaps)
    assert result.departures(1e-12)
    assert "too narrow" in result.summary()


def test_the_sandwich_is_about_what_was_observed():
    """Both bounds against the truth: 5 standard errors of the means."""
    vae = make_vae()
    x = with_gaps(vae, 60)
    bounds = evidence.sandwich(vae.model, vae.guide, x, num_chains=8, num_temperatures=40, num_leapfrog=4)
    assert torch.equal(bounds.x.isnan(), x.isnan())
    exact = exact_log_prob(vae, bounds.x)
    for excess in (exact - bounds.lower, bounds.upper - exact):
        assert excess.mean() > -5 * excess.std() / 60**0.5
        assert excess.mean() < 0.3


def test_the_certificate_is_about_what_was_observed():
    """Its rows have the gaps of those of x, in turn."""
    vae, seen = make_vae(), []
    x = with_gaps(vae, 7)

    def model(x):
        seen.append(x)
        return vae.model(x)

    certificate = evidence.estimate(model, vae.guide, x, certify=20, compile=False).certificate
    drawn = next(each for each in reversed(seen) if len(each) == 20)
    assert torch.equal(drawn.isnan(), x[torch.arange(20) % 7].isnan())
    exact = exact_log_prob(vae, drawn)
    assert_close(certificate.lower, exact, rtol=0, atol=0.15)
    assert_close(certificate.upper, exact, rtol=0, atol=0.5)


# Other ways to leave values out. Each model: z ~ N(0, I), x ~ N(z_1 + z_2, 1) in three pixels, some of them left out.


def masked_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))


def masked_model(site):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            site(x, dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), 1.0))

    return model


def by_distribution(x, fn):
    pyro.sample("x", fn.mask(~x.isnan()).to_event(1), obs=x.nan_to_num())


def by_sentinel(x, fn):
    pyro.sample("x", fn.mask(x != -9).to_event(1), obs=x)


def by_row(x, fn):
    """Rows that begin with NaN are left out, all of them."""
    with poutine.mask(mask=~x[..., 0].isnan()):
        pyro.sample("x", fn.to_event(1), obs=x.nan_to_num())


def by_mask_of_all(x, fn):
    pyro.sample("x", fn.to_event(1).mask(False), obs=x)


def by_value(x, fn):
    pyro.sample("x", fn.mask(x > -0.5).to_event(1), obs=x)


def filled_in(x, fn):
    pyro.sample("x", fn.to_event(1), obs=x.nan_to_num())


@pytest.mark.parametrize(
    ("site", "gap"), [(by_distribution, torch.nan), (by_sentinel, -9.0), (by_row, torch.nan), (by_mask_of_all, 0.0)]
)
def test_masks_are_taken_over(site, gap):
    x = torch.randn(20, 3)
    left_out = torch.rand(20, 3) < 0.4
    if site is by_row:
        left_out = left_out[:, :1].expand(20, 3)
    elif site is by_mask_of_all:
        left_out = torch.ones(20, 3, dtype=torch.bool)
    x = x.masked_fill(left_out, gap)
    model = masked_model(site)
    drawn = simulate(model, masked_guide, x, find_layout(model, masked_guide, x)).x
    assert_close(drawn[left_out], x[left_out], rtol=0, atol=0, equal_nan=True)
    assert not (drawn == x)[~left_out].any()
    assert drawn[~left_out].isfinite().all()


def test_a_mask_of_a_plate_to_the_left():
    """x is transposed on its way to the site."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.plate("pixels", 3, dim=-2), poutine.mask(mask=~x.T.isnan()):
                pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x.T.nan_to_num())

    x = torch.randn(20, 3).masked_fill(torch.rand(20, 3) < 0.4, torch.nan)
    drawn = simulate(model, masked_guide, x, find_layout(model, masked_guide, x)).x
    assert torch.equal(drawn.isnan(), x.isnan())


@pytest.mark.parametrize(
    ("site", "x", "message"),
    [
        (filled_in, torch.tensor([[0.0, torch.nan, 1.0]]), "but site 'x' observes numbers there"),
        (by_value, torch.ones(1, 3), "hides other values of data drawn from the model than of x"),
    ],
)
def test_gaps_that_cannot_be_taken_over_are_refused(site, x, message):
    x, model = x.expand(60, 3).clone(), masked_model(site)
    for simulating in (evidence.calibrate, evidence.sandwich):
        with pytest.raises(ValueError, match=message):
            simulating(model, masked_guide, x)
    with pytest.raises(ValueError, match=message):
        evidence.estimate(model, masked_guide, x, certify=2)
    assert evidence.estimate(model, masked_guide, x).log_prob.isfinite().all()


def test_a_model_that_draws_nan_is_named():
    """Which would pass for a value that is missing. It does so for latents that the guide does not draw."""

    class Broken(nn.Module):
        def forward(self, z):
            scale = torch.where(z.sum(-1, keepdim=True) > -20, torch.nan, 1.0)
            return dist.Normal(torch.zeros(3), scale.expand(*z.shape[:-1], 3), validate_args=False).to_event(1)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", likelihoods.Incomplete(Broken())(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full((len(x), 2), -30.0), 1.0).to_event(1))

    with pytest.raises(ValueError, match="site 'x' of the model draws NaN"):
        evidence.calibrate(model, guide, torch.randn(60, 3))


def test_a_deterministic_site_is_no_data():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = pyro.deterministic("loc", z.sum(-1, keepdim=True).expand(*z.shape[:-1], 3), event_dim=1)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    x = torch.randn(60, 3)
    assert evidence.sandwich(model, masked_guide, x, num_chains=2, num_temperatures=2).x.shape == x.shape
