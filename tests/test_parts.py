"""The contract of parts, over every combination. A new part is a new row in one of the three tables."""

from __future__ import annotations

import copy

import pyro
import pytest
import torch
from parts import EVENT, LATENT, LIKELIHOODS, POSTERIORS, PRIORS, TorchPrior
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch.testing import assert_close

from pyro_vae import VAE, evidence, weights


@pytest.fixture(params=POSTERIORS)
def posterior(request):
    return POSTERIORS[request.param]()


@pytest.fixture(params=PRIORS)
def vae(request, likelihood, posterior):
    return VAE(PRIORS[request.param](posterior), likelihood, posterior)


@pytest.fixture(params=LIKELIHOODS)
def likelihood(request):
    return LIKELIHOODS[request.param]()


def test_shapes_under_leading_dimensions(vae):
    assert (vae.latent_shape, vae.event_shape) == ((LATENT,), EVENT)
    for batch in ((5,), (4, 5), (2, 1, 5)):
        z = vae.prior().sample(batch)
        x = vae.likelihood(z).sample()
        assert z.shape == (*batch, LATENT)
        assert x.shape == (*batch, *EVENT)
        assert vae.prior().log_prob(z).shape == batch
        assert vae.likelihood(z).log_prob(x).shape == batch
        assert vae.posterior(x).log_prob(z).shape == batch
        # A leading dimension only repeats what happens without it.
        last = (0,) * (len(batch) - 1)
        assert_close(vae.posterior(x).log_prob(z)[last], vae.posterior(x[last]).log_prob(z[last]))
        assert_close(vae.likelihood(z).log_prob(x)[last], vae.likelihood(z[last]).log_prob(x[last]))


def test_log_weights_are_pyros_trace_sums_and_reach_every_parameter(vae):
    x = vae.sample(6)
    torch.manual_seed(1)
    log_w = weights.log_weights(vae.model, vae.guide, x, 4)
    torch.manual_seed(1)
    loss = Trace_ELBO(4, vectorize_particles=True, max_plate_nesting=1).loss(vae.model, vae.guide, x)
    assert log_w.isfinite().all()
    assert_close(-log_w.mean(0).sum().item(), loss, rtol=1e-5, atol=1e-4)
    log_w.mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_svi_trains_it_and_then_its_evidence_equals_quadrature(vae):
    vae = vae.double()
    x = vae.sample(30)
    before = weights.log_weights(vae.model, vae.guide, x, 50).mean().item()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    for _ in range(150):
        svi.step(x)
    assert weights.log_weights(vae.model, vae.guide, x, 50).mean().item() > before
    _check_against_quadrature(vae, x)


@torch.no_grad()
def _check_against_quadrature(vae, x):
    line = torch.linspace(-9, 9, 601, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    log_area = 2 * (line[1] - line[0]).log()
    # The density of the prior integrates to one, and with the likelihood to the evidence.
    assert (vae.prior().log_prob(z).logsumexp(0) + log_area).exp().item() == pytest.approx(1, abs=1e-6)
    log_joint = vae.prior().log_prob(z) + torch.stack([vae.likelihood(z).log_prob(row) for row in x])
    exact = log_joint.logsumexp(1) + log_area
    result = evidence.importance(vae.model, vae.guide, x, num_samples=20_000)
    believable = result.pareto_k < 0.7
    assert believable.double().mean() > 0.5
    error = (result.log_prob - exact)[believable].abs()
    assert (error <= 5 * result.std_error[believable] + 1e-6).all()


def test_sampling_and_density_agree(vae):
    """E[d log p / d theta] = 0 where x is drawn from p: the score of every part vanishes on average."""
    n = 4000
    for part, inputs in (
        (vae.prior, ()),
        (vae.likelihood, (torch.ones(LATENT),)),
        (vae.posterior, (torch.ones(EVENT),)),
    ):
        parameters = list(part.parameters())
        if not parameters:
            continue
        distribution = part(*inputs)
        draws = distribution.sample((n,)).detach()
        scores = torch.autograd.grad(distribution.log_prob(draws).mean(), parameters, allow_unused=True)
        # Its error by the central limit theorem, from the scores of blocks of draws.
        blocks = [
            torch.autograd.grad(part(*inputs).log_prob(block).mean(), parameters, allow_unused=True)
            for block in draws.split(n // 40)
        ]
        for i, score in enumerate(scores):
            if score is not None:
                error = torch.stack([block[i] for block in blocks]).std(0) / 40**0.5
                assert (score.abs() <= 6 * error + 1e-5).all()


def test_state_survives_saving_copying_and_float64(vae):
    x = vae.sample(5)

    def elbo(vae, x):
        torch.manual_seed(2)
        return weights.log_weights(vae.model, vae.guide, x, 3).detach()

    before = elbo(vae, x)
    other = copy.deepcopy(vae)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    assert not torch.equal(elbo(other, x), before)
    other.load_state_dict(vae.state_dict())
    assert torch.equal(elbo(other, x), before)
    double = vae.double()
    assert double.sample(2).dtype == elbo(double, x.double()).dtype == torch.float64


def test_both_of_pyros_elbos_and_ours_agree(vae):
    check = evidence.check_elbo(vae.model, vae.guide, vae.sample(50), num_particles=40)
    assert check.agree, check.summary()


def test_an_analytic_divergence_is_found_in_torchs_own_distributions():
    """Wrapped for Pyro, Independent(Normal) still has a KL divergence: no noise, and what check_elbo computes."""
    vae = VAE(TorchPrior(), LIKELIHOODS["Bernoulli"](), POSTERIORS["Normal"]())
    check = evidence.check_elbo(vae.model, vae.guide, vae.sample(20))
    assert check.analytic is not None
    assert check.mean_field.value == pytest.approx(check.analytic.value, rel=1e-6)
    assert check.mean_field.value != pytest.approx(check.trace.value, rel=1e-5)
    assert TraceMeanField_ELBO().loss(vae.model, vae.guide, vae.sample(3)) > 0
