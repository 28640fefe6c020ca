"""The parts of the ELBO against closed forms, active units, and posterior collapse."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from linear_gaussian import random_instance
from pyro import distributions as dist
from torch.testing import assert_close

from pyro_vae import evidence

LOC = torch.tensor([-1.5, 0.2, 2.0], dtype=torch.float64)
SCALE = torch.tensor([0.5, 0.3, 0.8], dtype=torch.float64)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def three_kinds(x):
    """q is one of three normals, by the kind of the datapoint."""
    kind = x.long()
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(LOC[kind], SCALE[kind]))


def test_every_part_against_quadrature():
    """The aggregate posterior is a mixture of three normals, whose divergences are integrals over a line."""
    x = torch.arange(3.0, dtype=torch.float64).repeat(500)
    parts = evidence.decompose_elbo(model, three_kinds, x, num_particles=20, num_marginal=1500)
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    q = dist.Normal(LOC, SCALE).log_prob(z)
    marginal = q.logsumexp(1) - math.log(3)
    prior = dist.Normal(0.0, 1.0).log_prob(z[:, 0])
    step = 24 / 20_000
    information = (q.exp() * (q - marginal[:, None])).sum(0).mean().item() * step
    excess = (marginal.exp() * (marginal - prior)).sum().item() * step
    reconstruction = -((torch.arange(3.0) - LOC) ** 2 + SCALE**2 + math.log(2 * math.pi)).mean().item() / 2
    assert abs(parts.reconstruction - reconstruction) < 5 * parts.reconstruction_std_error
    assert abs(parts.rate - information - excess) < 5 * parts.rate_std_error
    assert abs(parts.mutual_information - information) < 5 * parts.mutual_information_std_error
    assert parts.mutual_information_std_error < 0.03
    assert abs(parts.marginal_kl - excess) < 5 * (parts.mutual_information_std_error + parts.rate_std_error)
    assert parts.distortion == -parts.reconstruction
    assert parts.elbo == pytest.approx(parts.reconstruction - parts.mutual_information - parts.marginal_kl)
    assert_close(parts.activity["z"].item(), LOC.var(correction=0).item(), rtol=0.1, atol=0)


def test_it_is_the_elbo():
    vae, x = random_instance(seed=3, latent=3, event=4, n=400, shift=0.4, widen=0.8)
    parts = evidence.decompose_elbo(vae.model, vae.guide, x, num_particles=50)
    elbo = evidence.check_elbo(vae.model, vae.guide, x, num_particles=50).log_weights
    assert abs(parts.elbo - elbo.value) < 5 * (parts.reconstruction_std_error + parts.rate_std_error + elbo.std_error)


def test_the_aggregate_posterior_of_simulated_data_is_the_prior():
    """Where q is exact, the marginal KL is only that of a finite sample: small, and the information is the rate."""
    vae, x = random_instance(seed=3, latent=2, event=4, n=4000)
    parts = evidence.decompose_elbo(vae.model, vae.guide, x, num_particles=4)
    assert abs(parts.marginal_kl) < 0.05
    assert parts.rate > 1
    assert not parts.collapsed


def test_information_is_at_most_the_log_of_the_number_of_datapoints():
    x = torch.arange(3.0, dtype=torch.float64)

    def apart(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(100 * x, 0.1))

    parts = evidence.decompose_elbo(model, apart, x, num_particles=50)
    assert parts.mutual_information == pytest.approx(math.log(3), abs=1e-9)
    assert "at most 1.099" in parts.summary()


def test_blocks_do_not_matter():
    vae, x = random_instance(seed=3, latent=2, event=4, n=1300, shift=0.3)
    whole = evidence.decompose_elbo(vae.model, vae.guide, x, num_particles=4)
    cut = evidence.decompose_elbo(vae.model, vae.guide, x, num_particles=4, chunk_size=100)
    error = whole.mutual_information_std_error + cut.mutual_information_std_error
    assert abs(whole.mutual_information - cut.mutual_information) < 5 * error
    assert_close(whole.activity["z"], cut.activity["z"], rtol=0.1, atol=0.01)


@pytest.mark.parametrize("num_particles", [6, 50])
def test_collapsed_units_are_not_active_however_few_the_particles(num_particles):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 0.1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = torch.nn.functional.pad(x[:, None], (0, 3))
            pyro.sample("z", dist.Normal(loc, torch.tensor([0.1, 1.0, 1.0, 1.0])).to_event(1))

    parts = evidence.decompose_elbo(model, guide, torch.randn(40_000), num_particles=num_particles, num_marginal=10)
    assert parts.active["z"].tolist() == [True, False, False, False]
    assert parts.collapsed
    assert "active units of 'z': 1 of 4" in parts.summary()
    assert "WARNING: posterior collapse" in parts.summary()


def test_no_warning_where_all_are_active():
    vae, x = random_instance(seed=3, latent=3, event=4, n=100)
    summary = evidence.decompose_elbo(vae.model, vae.guide, x).summary()
    assert "active units of 'z': 3 of 3" in summary
    assert "WARNING" not in summary


def test_bad_settings(vae, x):
    for option in ("num_particles", "num_marginal"):
        with pytest.raises(ValueError, match=f"{option} is 1; expected an integer of at least 2"):
            evidence.decompose_elbo(vae.model, vae.guide, x, **{option: 1})
