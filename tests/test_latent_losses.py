"""Losses on the latents of one draw: weights of the KL, of the total correlation, of the distance to the prior."""

from __future__ import annotations

import math
from functools import partial

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.optim.lr_scheduler import LinearLR

from pyro_vae import VAE, BottomUp, HierarchicalVAE, fit, likelihoods, nn, posteriors, priors
from pyro_vae.infer.losses import IWAE, BetaELBO, BetaTC, Capacity, FreeBits, InfoVAE
from pyro_vae.infer.losses.beta_tc import total_correlation
from pyro_vae.infer.losses.info_vae import gaussian_kernel, maximum_mean_discrepancy

LATENT = 3


@pytest.fixture
def vae():
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Normal(nn.mlp(LATENT, [6], 4), 0.7),
        posteriors.Normal(nn.mlp(4, [6], 2 * LATENT)),
    ).double()


@pytest.fixture
def x():
    return torch.randn(9, 4, dtype=torch.float64)


def by_hand(vae, x):
    """The parts of the loss for the draws of seed 0, without Pyro: z, log p(x | z), KL of each latent dimension."""
    torch.manual_seed(0)
    q = vae.posterior(x).base_dist
    z = q.loc + q.scale * torch.randn(q.loc.shape, dtype=x.dtype)
    kl = 0.5 * (q.loc**2 + q.scale**2 - 1) - q.scale.log()
    return z, vae.likelihood(z).log_prob(x), kl, q


def seeded(loss, vae, x):
    torch.manual_seed(0)
    return loss(vae.model, vae.guide, x)


def assert_same(loss, by_hand, vae):
    """The same value, and the same gradients."""
    assert torch.allclose(loss, by_hand)
    leaves = list(vae.parameters())
    for a, b in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(by_hand, leaves), strict=True):
        assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_beta_elbo(vae, x, beta):
    _, log_likelihood, kl, _ = by_hand(vae, x)
    assert_same(seeded(BetaELBO(beta), vae, x), beta * kl.sum() - log_likelihood.sum(), vae)


def test_beta_elbo_weighs_any_loss(vae, x):
    """Where all weights are in the KL, as for one particle, the bound of IWAE is the ELBO with a sampled KL."""
    torch.manual_seed(0)
    one = BetaELBO(3.0, IWAE(1))(vae.model, vae.guide, x)
    assert_same(one, seeded(BetaELBO(3.0, Trace_ELBO()), vae, x), vae)


def test_beta_elbo_names_a_loss_it_cannot_take(vae, x):
    class NoFunction:
        def loss_and_grads(self, *args):
            pass

    with pytest.raises(TypeError, match="expected a function of model and guide"):
        BetaELBO(2.0, NoFunction())(vae.model, vae.guide, x)


@pytest.mark.parametrize("nats", [0.1, 50.0])
def test_capacity(vae, x, nats):
    _, log_likelihood, kl, _ = by_hand(vae, x)
    expected = 7.0 * len(x) * (kl.sum(-1).mean() - nats).abs() - log_likelihood.sum()
    assert_same(seeded(Capacity(7.0, nats), vae, x), expected, vae)


def test_the_capacity_is_that_of_all_latents_of_a_datapoint(x):
    """Of two sites, one of them in a plate of three beside that of the data; 4.5 nats in all."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("a", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(torch.zeros_like(x), 1.0).to_event(1), obs=x)
            with pyro.plate("three", 3, dim=-2):
                pyro.sample("b", dist.Normal(torch.zeros(3, len(x)), 1.0))

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("a", dist.Normal(torch.full((len(x),), 3.0), 1.0))
            with pyro.plate("three", 3, dim=-2):
                pyro.sample("b", dist.Normal(torch.zeros(3, len(x)), 1.0))

    log_likelihood = dist.Normal(0.0, 1.0).log_prob(x).sum()
    assert torch.allclose(Capacity(10.0, 4.5)(model, guide, x), -log_likelihood)
    assert torch.allclose(Capacity(10.0, 0.0)(model, guide, x), 10 * 4.5 * len(x) - log_likelihood)


def test_capacity_is_where_training_ends_and_is_raised_on_the_way(vae):
    vae = vae.float()
    data = (torch.randn(256, LATENT) @ torch.randn(LATENT, 4)).float()
    at = []

    def capacity(epoch):
        at.append(epoch)
        return min(1.5, 0.1 * epoch)

    loss = Capacity(100.0, capacity)
    decay = partial(LinearLR, start_factor=1.0, end_factor=0.01, total_iters=40)
    run = fit(
        vae, data, data, epochs=40, batch_size=64, lr=1e-2, loss=loss, scheduler=decay, seed=0, progress=False
    )  # fmt: skip
    sampling = 0.2  # the rate of 256 validation data is sampled
    assert run.history[-1]["valid_rate"] == pytest.approx(1.5, abs=sampling)
    assert run.history[3]["valid_rate"] < 1.5 - sampling
    assert sorted(set(at))[:6] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]  # before every step
    assert loss.nats == 1.5


def pairs_by_hand(q, z, num_data):
    """log q(z_i) and log q(z_i[d]) by two loops: the mean over the data, of which all but i are as those of the batch."""
    n = len(z)
    joint, marginals = [], []
    for i in range(n):
        densities = torch.stack([torch.exp(dist.Normal(q.loc[j], q.scale[j]).log_prob(z[i])) for j in range(n)])
        shares = torch.full((n,), (num_data - 1) / num_data / (n - 1), dtype=z.dtype)
        shares[i] = 1 / num_data
        joint.append((shares * densities.prod(-1)).sum().log())
        marginals.append((shares[:, None] * densities).sum(0).log())
    return torch.stack(joint), torch.stack(marginals)


@pytest.mark.parametrize("num_data", [9, 1000])
def test_beta_tc(vae, x, num_data):
    z, log_likelihood, _, q = by_hand(vae, x)
    joint, marginals = pairs_by_hand(q, z, num_data)
    log_prior = dist.Normal(0.0, 1.0).log_prob(z)
    information = q.log_prob(z).sum(-1) - joint
    dimensions = (marginals - log_prior).sum(-1)
    expected = (information + 6.0 * (joint - marginals.sum(-1)) + dimensions - log_likelihood).sum()
    assert_same(seeded(BetaTC(6.0, num_data), vae, x), expected, vae)


def test_beta_tc_of_one_is_the_elbo(vae, x):
    assert_same(seeded(BetaTC(1.0, 1000), vae, x), seeded(Trace_ELBO().differentiable_loss, vae, x), vae)
    one, other = (
        torch.autograd.grad(seeded(loss, vae, x[:1]), list(vae.parameters()))
        for loss in (BetaTC(9.0, 1000), Trace_ELBO().differentiable_loss)
    )
    assert all(torch.allclose(a, b) for a, b in zip(one, other, strict=True))  # which one datapoint says nothing of


def test_total_correlation_of_a_batch_of_all_data_is_exact():
    """Codes that are nearly points: q(z) is a known normal, of known correlation, smeared out by q(z | x)."""
    correlation, n = 0.8, 2000
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    smear = 0.2
    loc = dist.MultivariateNormal(torch.zeros(2).double(), covariance - smear**2 * torch.eye(2)).sample((n,))
    q = dist.Normal(loc, torch.full_like(loc, smear))
    samples = total_correlation(q, q.sample(), n)
    exact = -0.5 * math.log(1 - correlation**2)  # of normals
    # The mean over this data set differs from that over all; 5 standard errors, and the bias of a kernel estimate.
    assert abs(samples.mean() - exact) < 5 * samples.std() / math.sqrt(n) + 0.02


def test_beta_tc_refuses_what_it_is_not_defined_for(x):
    full = VAE(
        priors.StandardNormal(2),
        likelihoods.Normal(nn.mlp(2, [6], 4), 0.7),
        posteriors.FullNormal(nn.mlp(4, [6], 5)),
    ).double()
    with pytest.raises(ValueError, match="q of 'z' is not a vector with independent dimensions"):
        BetaTC(2.0, 100)(full.model, full.guide, x)
    deep = hierarchy()
    with pytest.raises(ValueError, match=r"the latent sites are \['z1', 'z2'\]; BetaTC expects exactly one"):
        BetaTC(2.0, 100)(deep.model, deep.guide, x)


def hierarchy():
    return HierarchicalVAE(
        prior=priors.StandardNormal(1),
        layers=[posteriors.Normal(nn.mlp(1, [5], 2 * 2))],
        likelihood=likelihoods.Normal(nn.mlp(2, [6], 4), 0.7),
        posterior=BottomUp([posteriors.Normal(nn.mlp(4, [6], 4)), posteriors.Normal(nn.mlp(2, [6], 2))]),
    ).double()


def test_in_a_hierarchy_the_kl_is_that_of_the_elbo(x):
    """Bottom-up, the parents of z1 in the model are drawn after it, so that its KL has no closed form."""
    deep = hierarchy()
    with torch.no_grad():
        torch.manual_seed(0)
        elbo = Trace_ELBO().differentiable_loss(deep.model, deep.guide, x)
        torch.manual_seed(0)
        assert torch.allclose(InfoVAE(1e-12, 1.0)(deep.model, deep.guide, x), elbo)
        torch.manual_seed(0)
        free = FreeBits(1e-12)(deep.model, deep.guide, x)
    assert free >= elbo - 1e-9  # equal but for groups of negative sampled KL, which count as nothing


def test_info_vae(vae, x):
    z, log_likelihood, kl, _ = by_hand(vae, x)
    draws = torch.randn(len(x), LATENT, dtype=torch.float64)  # the next noise, as the model draws it
    n = len(x)
    mmd = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                mmd = mmd + _kernel(z[i], z[j]) / (n * (n - 1)) + _kernel(draws[i], draws[j]) / (n * (n - 1))
            mmd = mmd - 2 * _kernel(z[i], draws[j]) / n**2
    for kl_weight in (0.0, 0.3):
        expected = 5.0 * n * mmd + kl_weight * kl.sum() - log_likelihood.sum()
        loss = seeded(InfoVAE(5.0, kl_weight), vae, x)
        assert torch.allclose(loss, expected)
        leaves = list(vae.parameters())
        theirs = torch.autograd.grad(expected, leaves, retain_graph=True)
        assert all(torch.allclose(a, b) for a, b in zip(torch.autograd.grad(loss, leaves), theirs, strict=True))


def _kernel(a, b):
    return torch.exp(-((a - b) ** 2).sum() / (2 * len(a)))


def test_mean_discrepancy_is_unbiased():
    """For the kernel exp(-d^2 / (2 L)) of normals N(m, s^2 I) in L dimensions, in closed form; zero if they are equal."""
    latent, loc, scale = 2, 0.7, 1.5

    def mean_kernel(difference, variance):  # of the difference of two draws, each entry N(difference, variance)
        ratio = 1 + variance / latent
        return ratio ** (-latent / 2) * math.exp(-(difference**2) / (2 * ratio))

    exact = (
        mean_kernel(0.0, 2 * scale**2) + mean_kernel(0.0, 2.0) - 2 * mean_kernel(loc, scale**2 + 1)
    )  # |difference|^2 = 2 loc^2 = latent loc^2
    for a_loc, a_scale, expected in ((loc, scale, exact), (0.0, 1.0, 0.0)):
        estimates = torch.stack([
            maximum_mean_discrepancy(a_loc + a_scale * torch.randn(20, latent), torch.randn(15, latent), gaussian_kernel)
            for _ in range(2000)
        ])  # fmt: skip
        assert abs(estimates.mean() - expected) < 5 * estimates.std() / math.sqrt(len(estimates))  # false alarms: 6e-7


def test_a_batch_of_one_has_no_discrepancy(vae, x):
    one = seeded(InfoVAE(5.0, 1.0), vae, x[:1])
    assert torch.allclose(one, seeded(TraceMeanField_ELBO().differentiable_loss, vae, x[:1]))
    with pytest.raises(ValueError, match="the samples have 1 and 9 rows; expected at least 2 in each"):
        maximum_mean_discrepancy(x[:1], x)


def test_info_vae_without_kl_makes_the_codes_look_like_the_prior():
    torch.manual_seed(0)
    data = (torch.randn(512, 2) @ torch.randn(2, 4)).float()
    spread = {}
    for weight in (1e-6, 1000.0):
        torch.manual_seed(1)
        vae = VAE(
            priors.StandardNormal(2), likelihoods.Normal(nn.mlp(2, [16], 4), 0.1),
            posteriors.Normal(nn.mlp(4, [16], 4)),
        )  # fmt: skip
        fit(vae, data, epochs=60, batch_size=128, lr=1e-2, loss=InfoVAE(weight), seed=0, progress=False)
        z = vae.posterior(data).sample()
        spread[weight] = maximum_mean_discrepancy(z, torch.randn(512, 2)).item()
    assert spread[1000.0] < 0.1 * spread[1e-6]
