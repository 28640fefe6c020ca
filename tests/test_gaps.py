"""Where the slack is: both gaps against their closed forms."""

from __future__ import annotations

import re
from dataclasses import replace

import pyro
import pytest
import torch
import zuko
from linear_gaussian import exact_log_evidence, exact_posterior, random_instance
from pyro import distributions as dist
from torch import nn as torch_nn
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_vae import VAE, evidence, posteriors


class MeanField(torch_nn.Module):
    """The diagonal normal closest to the exact posterior in KL(q || p), moved and widened."""

    def __init__(self, likelihood, shift=0.0, widen=1.0):
        super().__init__()
        self.likelihood, self.shift, self.widen = likelihood, shift, widen

    def forward(self, x):
        exact = exact_posterior(self.likelihood, x)
        scale = exact.precision_matrix.diagonal(dim1=-2, dim2=-1).rsqrt()
        return dist.Normal(exact.loc + self.shift * scale, self.widen * scale).to_event(1)


class Constant(torch_nn.Module):
    """A flow without a context: the same q for all data."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        return self.flow().expand(x.shape[:1])


class MeanFieldOutputs(MeanField):
    """The outputs of a network for a flow: location, raw scale and a context of one number."""

    def forward(self, x):
        q = super().forward(x).base_dist
        return torch.cat([q.loc, q.scale.expm1().log(), torch.zeros_like(q.loc[:, :1])], dim=-1)


def divergence(q, p):
    """KL(q || p) of a diagonal normal from a full one, ``[n]``."""
    full = dist.MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    return kl_divergence(full, p).detach()


def test_both_gaps_are_those_of_the_closed_form():
    vae, x = random_instance(seed=3, latent=4, event=6, n=40)
    exact = exact_posterior(vae.likelihood, x)
    off = VAE(vae.prior, vae.likelihood, MeanField(vae.likelihood, shift=1.0, widen=1.5))
    gap = evidence.inference_gap(off.model, off.guide, x, num_samples=2000)
    family = divergence(MeanField(vae.likelihood)(x), exact)
    network = divergence(off.posterior(x), exact) - family
    assert family.mean() > 0.3
    assert network.mean() > 1.0
    log_prob = exact_log_evidence(vae.likelihood, x)
    assert ((gap.log_prob - log_prob).abs() < 3 * gap.log_prob_error).all()
    assert ((gap.best_elbo - (log_prob - family)).abs() < 5 * gap.best_elbo_std_error + 0.01).all()
    assert gap.converged.all()
    assert ((gap.elbo - (log_prob - family - network)).abs() < 5 * gap.elbo_std_error).all()
    assert (gap.elbo_std_error < 0.12).all()
    assert_close(gap.approximation + gap.amortization, gap.total)
    assert "WARNING" not in gap.summary()


def test_no_gap_in_a_family_that_has_the_posterior():
    """A full covariance, from a start that is off, with parameters that are bounded."""
    vae, x = random_instance(seed=3, latent=3, event=5, n=10, shift=0.7, widen=0.6)
    gap = evidence.inference_gap(vae.model, vae.guide, x, num_steps=700, num_particles=32)
    assert (gap.approximation.abs() < 2 * gap.log_prob_error + 0.02).all()
    assert gap.approximation.mean().abs() < 0.02
    assert gap.amortization.mean() > 0.3
    assert gap.converged.all()
    assert gap.settled.all()


def test_parameters_are_found_for_each_datapoint_by_itself():
    """In a batch or alone, to the noise of the optimization."""
    vae, x = random_instance(seed=3, latent=2, event=3, n=8)
    exact = exact_log_evidence(vae.likelihood, x)
    off = VAE(vae.prior, vae.likelihood, MeanField(vae.likelihood, shift=1.0))
    together, alone = (
        evidence.inference_gap(off.model, off.guide, x[:3], log_prob=exact[:3], num_steps=300, chunk_size=chunk_size)
        for chunk_size in (1000, 16)
    )
    error = (together.best_elbo_std_error**2 + alone.best_elbo_std_error**2).sqrt()
    assert ((together.best_elbo - alone.best_elbo).abs() < 5 * error + 0.02).all()


def far_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 100.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def standard_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(len(x)), torch.ones(len(x))))


def test_a_guide_far_away_is_no_approximation_gap():
    """The family has the posterior, which lies tens of standard deviations from where the guide is."""
    x = torch.tensor([0.0, -5.0, 20.0, 60.0])
    gap = evidence.inference_gap(far_model, standard_guide, x, progress=iter)
    assert gap.converged.all()
    assert (gap.approximation.abs() < 0.02).all()
    exact = dist.Normal(0.0, (100.0**2 + 1) ** 0.5).log_prob(x).double()
    assert ((gap.log_prob - exact).abs() <= 2 * gap.log_prob_error).all()
    assert "WARNING" not in gap.summary()


def test_what_has_not_ended_is_no_approximation_gap():
    x = torch.tensor([0.0, 60.0, 500.0])
    gap = evidence.inference_gap(far_model, standard_guide, x, num_steps=100, max_rounds=3, progress=iter)
    assert gap.converged.tolist() == [True, False, False]
    assert gap.approximation.isnan().tolist() == [False, True, True]
    assert gap.amortization.isnan().tolist() == [False, True, True]
    assert gap.total.isfinite().all()
    assert (gap.best_elbo[1:] > gap.elbo[1:] + 10).all()  # though it has come nearer
    assert "for 2 of 3 datapoints the ELBO of the best q was still rising" in gap.summary()
    none = evidence.inference_gap(far_model, standard_guide, x[2:], num_steps=5, max_rounds=1, progress=iter)
    assert re.search(r"approximation gap .* not known", none.summary())


def test_a_round_that_makes_it_worse_is_taken_back():
    vae, x = random_instance(seed=3, latent=2, event=3, n=6)
    gap = evidence.inference_gap(vae.model, vae.guide, x, num_steps=1, lr=5.0, max_rounds=1, num_samples=4000)
    assert ((gap.best_elbo - gap.elbo).abs() < 5 * gap.elbo_std_error + 0.02).all()
    assert not gap.converged.any()


def test_errors_come_with_log_p():
    vae, x = random_instance(seed=3, latent=2, event=3, n=8)
    off = VAE(vae.prior, vae.likelihood, MeanField(vae.likelihood))
    known = evidence.estimate(off.model, off.guide, x, progress=iter)
    gap = evidence.inference_gap(off.model, off.guide, x, log_prob=known, num_steps=100, progress=iter)
    assert torch.equal(gap.log_prob_error, known.error)
    assert torch.equal(gap.log_prob_bias, known.bias)
    assert re.search(r"log p\(x\) .* \+- [0-9.]+\n", gap.summary())
    bound = replace(known, error=known.error.index_fill(0, torch.tensor([2]), torch.inf))
    gap = evidence.inference_gap(off.model, off.guide, x, log_prob=bound, num_steps=100, progress=iter)
    assert gap.settled.sum() == 7
    assert re.search(r"log p\(x\) +at least", gap.summary())
    assert re.search(r"approximation gap .* at least", gap.summary())
    assert "for 1 of 8 datapoints log p(x) is only a lower bound" in gap.summary()


def test_log_p_may_be_given():
    vae, x = random_instance(seed=3, latent=2, event=3, n=8)
    exact = exact_log_evidence(vae.likelihood, x)
    off = VAE(vae.prior, vae.likelihood, MeanField(vae.likelihood))
    gap = evidence.inference_gap(off.model, off.guide, x, log_prob=exact, num_steps=5, max_rounds=1)
    assert_close(gap.log_prob, exact)
    assert (gap.log_prob_error == 0).all()
    with pytest.raises(ValueError, match=r"log_prob has shape \[7\]; expected \[8\]"):
        evidence.inference_gap(off.model, off.guide, x, log_prob=exact[:7])


def test_given_log_p_belongs_to_its_datapoint_in_every_block():
    vae, x = random_instance(seed=3, latent=2, event=3, n=8)
    exact = exact_log_evidence(vae.likelihood, x)
    off = VAE(vae.prior, vae.likelihood, MeanField(vae.likelihood))
    few = {"num_steps": 1, "max_rounds": 1, "num_samples": 2, "num_particles": 2, "chunk_size": 6, "progress": iter}
    gap = evidence.inference_gap(off.model, off.guide, x, log_prob=exact, **few)
    assert_close(gap.log_prob, exact)
    assert_close(gap.total, exact - gap.elbo)


def test_the_error_of_a_gap_is_that_of_both_its_ends():
    """Of four datapoints with the standard errors 0.3 and 0.4: those of the means are half, and the third side 5."""
    four = torch.ones(4, dtype=torch.float64)
    gap = evidence.InferenceGap(
        elbo=-3 * four,
        best_elbo=-2 * four,
        log_prob=-1 * four,
        elbo_std_error=0.3 * four,
        best_elbo_std_error=0.4 * four,
        log_prob_error=0 * four,
        log_prob_bias=0 * four,
        converged=four.bool(),
    )
    for name, error in (("amortization", 0.25), ("approximation", 0.2), ("inference", 0.15)):
        mean = 2 if name == "inference" else 1
        assert re.search(rf"{name} gap.* {mean}\.000 \+- {1.95996 * error:.3f}\n", gap.summary())


def test_networks_are_left_alone(vae, x):
    before = {name: parameter.clone() for name, parameter in vae.named_parameters()}
    evidence.inference_gap(vae.model, vae.guide, x, num_samples=5, num_steps=5, max_rounds=2)
    for name, parameter in vae.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None


def test_a_flow_that_is_a_normal_has_the_gaps_of_the_normal():
    """The free parameters are the outputs of the network."""
    vae, x = random_instance(seed=3, latent=3, event=5, n=8)
    exact = exact_posterior(vae.likelihood, x)
    network = MeanFieldOutputs(vae.likelihood, shift=0.7, widen=1.3)
    flow = posteriors.InverseAutoregressive(network, latent_dim=3, context_dim=1, hidden_features=[4]).double()
    for parameter in flow.steps.parameters():
        torch.nn.init.zeros_(parameter)  # each step is the identity
    off = VAE(vae.prior, vae.likelihood, flow)
    gap = evidence.inference_gap(off.model, off.guide, x, log_prob=exact_log_evidence(vae.likelihood, x))
    family = divergence(MeanField(vae.likelihood)(x), exact)
    network = divergence(MeanField(vae.likelihood, shift=0.7, widen=1.3)(x), exact) - family
    assert network.mean() > 0.5
    assert gap.converged.all()
    assert ((gap.approximation - family).abs() < 5 * gap.best_elbo_std_error + 0.02).all()
    errors = (gap.best_elbo_std_error**2 + gap.elbo_std_error**2).sqrt()
    assert ((gap.amortization - network).abs() < 5 * errors + 0.02).all()


def test_the_context_of_a_flow_of_zuko_is_free():
    """Wherever the network of the context begins, the best q is the same, and the flow's weights stay as they are."""
    vae, x = random_instance(seed=3, latent=2, event=3, n=6)
    flow = zuko.flows.MAF(2, 2, transforms=1, hidden_features=()).double()  # q(z | c): means and log-scales linear in c
    with torch.no_grad():
        flow.transform.transforms[0].hyper[0].weight.mul_(2)
    before = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    gaps = []
    for shift in (0.0, 1.0):
        encoder = torch_nn.Linear(3, 2).double()
        torch_nn.init.constant_(encoder.weight, 0.1)
        torch_nn.init.constant_(encoder.bias, shift)
        off = VAE(vae.prior, vae.likelihood, torch_nn.Sequential(encoder, flow))
        exact = exact_log_evidence(vae.likelihood, x)
        gaps.append(evidence.inference_gap(off.model, off.guide, x, log_prob=exact, num_particles=32))
    one, other = gaps
    assert one.converged.all()
    assert other.converged.all()
    assert (one.elbo - other.elbo).abs().mean() > 0.3
    errors = (one.best_elbo_std_error**2 + other.best_elbo_std_error**2).sqrt()
    assert ((one.best_elbo - other.best_elbo).abs() < 5 * errors + 0.02).all()
    assert one.amortization.mean() > 0.3
    assert (one.approximation > -5 * one.best_elbo_std_error).all()
    for name, tensor in flow.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_bounded_latents_and_several_sites():
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(3.0, 2.0))
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("count", dist.Poisson(rate), obs=x)
            pyro.sample("value", dist.Normal(z, 1.0).to_event(1), obs=x[:, None].expand(-1, 2))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(1 + x, 1.0))
            pyro.sample("z", dist.Normal(x[:, None].expand(-1, 2) / 3, 1.0).to_event(1))

    x = torch.arange(6.0)
    gap = evidence.inference_gap(model, guide, x, num_steps=500, num_particles=64)
    # The posterior is a Gamma and two normals, all in the families.
    assert (gap.approximation.abs() < 2 * gap.log_prob_error + 0.02).all()
    assert gap.amortization.mean() > 0.1


def test_a_log_normal_guide():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z.log(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(x / 3, 1.0))

    x = torch.linspace(-2, 2, 6)
    gap = evidence.inference_gap(model, guide, x, num_steps=300, num_particles=64)
    # The posterior is LogNormal(x / 2, 0.5 ** 0.5).
    exact = kl_divergence(dist.Normal(x / 3, 1.0), dist.Normal(x / 2, 0.5**0.5))
    assert (gap.approximation.abs() < 2 * gap.log_prob_error + 0.02).all()
    assert_close(gap.amortization.float(), exact, atol=0.15, rtol=0)


def test_what_cannot_be_optimized(vae, x):
    flow = VAE(vae.prior, vae.likelihood, Constant(zuko.flows.MAF(2, transforms=1)))
    with pytest.raises(ValueError, match="site 'z' of the guide, a NormalizingFlow, is not given by parameters"):
        evidence.inference_gap(flow.model, flow.guide, x)

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(x, 1.0))
            pyro.sample("a", dist.Normal(b, 1.0))

    with pytest.raises(ValueError, match="site 'a' of the guide has random parameters"):
        evidence.inference_gap(model, guide, torch.randn(5))
