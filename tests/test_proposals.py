"""Other proposals than the guide: the same evidence, and help where the guide is too narrow."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
import zuko
from linear_gaussian import exact_log_evidence, random_instance
from pyro import distributions as dist
from torch.testing import assert_close

from pyro_vae import VAE, evidence, weights
from pyro_vae.evidence import defensive, widened

PROPOSALS = {"widened": widened(1.7), "narrowed": widened(0.9), "defensive": defensive(0.3)}


@pytest.mark.parametrize("name", PROPOSALS)
def test_the_mean_weight_is_the_evidence(name):
    """Within 5 standard errors of 50000 samples: its density is the one that it draws from."""
    vae, x = random_instance(seed=5, latent=2, event=3, n=4, shift=0.3, widen=1.2)
    layout = weights.find_layout(vae.model, vae.guide, x)
    drawn = PROPOSALS[name](vae.model, vae.guide, x, 50_000, layout)
    ratios = (drawn.log_weights - exact_log_evidence(vae.likelihood, x)).exp()
    error = ratios.std(0) / len(ratios) ** 0.5
    assert (error < 0.05).all()
    assert ((ratios.mean(0) - 1).abs() < 5 * error).all()
    assert drawn.latents["z"].shape == (50_000, 4, 2)


def test_widening_stretches_about_the_mean():
    vae, x = random_instance(seed=1, latent=3, event=4, n=2)
    layout = weights.find_layout(vae.model, vae.guide, x)
    torch.manual_seed(1)
    plain = weights.terms(vae.model, vae.guide, x, 7, layout).latents["z"]
    torch.manual_seed(1)
    wide = widened(2.5)(vae.model, vae.guide, x, 7, layout).latents["z"]
    loc = vae.posterior(x).mean
    assert_close(wide - loc, 2.5 * (plain - loc))


@pytest.mark.parametrize("proposal", [widened(3.0), defensive(0.5)])
def test_they_mend_a_narrow_guide(proposal):
    vae, x = random_instance(seed=2, latent=2, event=3, n=20, widen=0.4)
    plain = evidence.importance(vae.model, vae.guide, x, num_samples=20_000)
    mended = evidence.importance(vae.model, vae.guide, x, num_samples=20_000, proposal=proposal)
    assert "WARNING" in plain.summary()
    assert (mended.pareto_k < 0.7).all()
    error = mended.log_prob - exact_log_evidence(vae.likelihood, x)
    assert (error.abs() < 5 * mended.std_error).all()
    assert mended.std_error.mean() < 0.1


def test_the_defensive_mixture_bounds_the_weights():
    """By the largest likelihood over the prior's share, whatever the guide."""
    vae, x = random_instance(seed=3, latent=2, event=3, n=10, shift=5.0, widen=0.1)
    layout = weights.find_layout(vae.model, vae.guide, x)
    drawn = defensive(0.2)(vae.model, vae.guide, x, 2000, layout)
    assert (drawn.log_weights <= drawn.log_likelihood - torch.tensor(0.2).log() + 1e-9).all()


def model(x):
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).to_event(1))
        b = pyro.sample("b", dist.Normal(a[..., 0], 1.0))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        b = pyro.sample("b", dist.Normal(x / 2, 0.4))
        pyro.sample("a", dist.Normal((b / 3)[..., None].expand(*b.shape, 2), 0.4).to_event(1))


def test_normals_at_modes_are_mixed_with_the_prior():
    """A tenth: so no weight exceeds ten times the likelihood, wherever the normals are."""
    vae, x = random_instance(seed=3, latent=2, event=3, n=5)
    layout = weights.find_layout(vae.model, vae.guide, x)
    at = evidence.laplace()(vae.model, vae.guide, x, 40, layout)
    assert (at.log_posterior >= at.log_prior + math.log(0.1) - 1e-9).all()


@pytest.mark.parametrize("name", PROPOSALS)
def test_programs_with_several_sites(name):
    x = torch.randn(5, dtype=torch.float64)
    ratios = (
        PROPOSALS[name](model, guide, x, 100_000, weights.find_layout(model, guide, x)).log_weights
        - dist.Normal(torch.zeros((), dtype=x.dtype), 3**0.5).log_prob(x)
    ).exp()
    error = ratios.std(0) / len(ratios) ** 0.5
    if name != "narrowed":  # too narrow to rely on the error
        assert ((ratios.mean(0) - 1).abs() < 5 * error).all()


def test_a_mixture_takes_all_sites_from_one_of_the_two():
    """From the guide both are near 100, from the prior near 0; never one of each."""

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(100.0, 1.0))
            pyro.sample("b", dist.Normal(100.0, 1.0))

    x = torch.zeros(50)
    latents = defensive(0.25)(model, guide, x, 400, weights.find_layout(model, guide, x)).latents
    far = latents["a"] > 50
    assert torch.equal(far, latents["b"] > 50)
    assert far.double().mean().item() == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / 20_000) ** 0.5)


def test_a_bounded_site_cannot_be_widened():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(pyro.sample("rate", dist.Gamma(1.0, 1.0))), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(1.0 + x, 2.0))

    x = torch.arange(4.0)
    with pytest.raises(ValueError, match=r"site 'rate' of the guide has support .*; only a real one"):
        evidence.importance(model, guide, x, proposal=widened(2.0))
    assert evidence.importance(model, guide, x, proposal=defensive(0.1)).log_prob.isfinite().all()


def test_a_flow_has_no_mean_to_be_widened_about(vae, x):
    class Flow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = zuko.flows.MAF(2, 16, transforms=1)

        def forward(self, x):
            return self.flow(x.flatten(-3))

    flow = VAE(vae.prior, vae.likelihood, Flow())
    with pytest.raises(ValueError, match="site 'z' of the guide, a NormalizingFlow, has no mean"):
        evidence.importance(flow.model, flow.guide, x, proposal=widened(2.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: widened(0), "factor is 0; expected a positive number"),
        (lambda: widened(float("nan")), "factor is nan"),
        (lambda: defensive(1.0), "prior_weight is 1.0; expected a number between 0 and 1"),
        (lambda: defensive(-0.1), "prior_weight is -0.1"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()
