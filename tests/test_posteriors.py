"""Posteriors, and the KL divergences from them to a prior of independent normals."""

from __future__ import annotations

import gc
import math
import weakref

import pyro
import pytest
import torch
from linear_gaussian import LinearLikelihood, exact_log_evidence, exact_posterior
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import nn as torch_nn
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_vae import VAE, evidence, nn, posteriors, priors, weights
from pyro_vae.distributions import as_pyro
from pyro_vae.distributions.positive_scale import positive_scale

LATENT, EVENT, CONTEXT = 3, (4,), 5
FULL = LATENT + LATENT * (LATENT + 1) // 2
FLOW = 2 * LATENT + CONTEXT


class Constant(torch_nn.Module):
    """A network with the same outputs for all data."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = torch_nn.Parameter(outputs)

    def forward(self, x):
        return self.outputs.expand(*x.shape[: x.ndim - len(EVENT)], -1)


def linear_gaussian(latent=LATENT, event=EVENT[0], scale=0.5):
    """The parts of a linear-Gaussian model, in float64, and data drawn from it."""
    likelihood = LinearLikelihood(torch.randn(event, latent), torch.randn(event), scale).double()
    z = torch.randn(20, latent, dtype=torch.float64)
    return priors.StandardNormal(latent).double(), likelihood, likelihood(z).sample()


def flow(kind, network=None):
    """A flow far from its start, where nothing is close to the identity."""
    posterior = kind(network or nn.mlp(EVENT, [8], FLOW), LATENT, CONTEXT, hidden_features=[16]).double()
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return posterior


def passes(posterior):
    """Counts the calls of autoregressive networks, one entry each."""
    calls = []
    for name, module in posterior.named_modules():
        if name.endswith(".hyper"):
            module.register_forward_hook(lambda *_: calls.append(1))
    return calls


flows = pytest.mark.parametrize("kind", [posteriors.InverseAutoregressive, posteriors.NeuralSpline])


def test_scales_are_the_same_model_in_float32_and_float64():
    raw = torch.linspace(-3, 5, 50)
    single, double = positive_scale(raw).double(), positive_scale(raw.double())
    # What the floor adds: eps / (2 scale^2) of the scale; and rounding.
    assert ((single / double - 1).abs() < torch.finfo(raw.dtype).eps * (0.5 / double.square() + 4)).all()
    assert positive_scale(torch.tensor(-1e30)).item() == pytest.approx(torch.finfo(raw.dtype).eps ** 0.5)


# Normals with correlations


def test_full_normal_has_every_covariance():
    root = torch.randn(LATENT, LATENT, dtype=torch.float64)
    loc, scale_tril = torch.randn(LATENT).double(), torch.linalg.cholesky(root @ root.T)
    scale = scale_tril.diagonal()
    rows, columns = torch.tril_indices(LATENT, LATENT, -1)
    raw_scale = scale.expm1().log()
    raw_below = scale_tril[rows, columns] / scale[rows] * 2 * LATENT
    q = posteriors.FullNormal(Constant(torch.cat([loc, raw_scale, raw_below])))(torch.zeros(2, 5, *EVENT))
    assert_close(q.loc, loc.expand(2, 5, -1))
    assert_close(q.covariance_matrix, (root @ root.T).expand(2, 5, -1, -1))


def test_full_normal_without_correlations_is_normal():
    x, z = torch.randn(6, *EVENT), torch.randn(7, 6, LATENT)
    network = nn.mlp(EVENT, [8], 2 * LATENT)
    padded = torch_nn.Sequential(network, torch_nn.ConstantPad1d((0, FULL - 2 * LATENT), 0.0))
    assert_close(posteriors.FullNormal(padded)(x).log_prob(z), posteriors.Normal(network)(x).log_prob(z))


@pytest.mark.parametrize("latent", [2, 10, 50])
def test_full_normal_starts_close_to_diagonal(latent):
    covariance = posteriors.FullNormal(nn.mlp(10, [64], latent * (latent + 3) // 2))(
        torch.randn(30, 10)
    ).covariance_matrix
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    correlation = covariance / scale.unsqueeze(-1) / scale.unsqueeze(-2)
    # As far from none in all directions: the eigenvalues of a correlation matrix, which are 1 without correlations.
    assert (torch.linalg.eigvalsh(correlation) - 1).abs().max() < 0.5


def test_full_normal_takes_only_possible_numbers_of_outputs():
    possible = {latent + latent * (latent + 1) // 2: latent for latent in range(1, 20)}
    for outputs in range(200):
        posterior = posteriors.FullNormal(Constant(torch.zeros(outputs)))
        if outputs in possible:
            assert posterior(torch.zeros(2, *EVENT)).event_shape == (possible[outputs],)
        else:
            with pytest.raises(ValueError, match=rf"FullNormal has {outputs} outputs.*latent \+ latent"):
                posterior(torch.zeros(2, *EVENT))


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_low_rank_normal_is_low_rank_plus_diagonal(rank):
    outputs = torch.randn(LATENT * (2 + rank), dtype=torch.float64)
    q = posteriors.LowRankNormal(Constant(outputs), rank)(torch.zeros(6, *EVENT))
    diagonal = posteriors.Normal(Constant(outputs[: 2 * LATENT]))(torch.zeros(6, *EVENT))
    factor = outputs[2 * LATENT :].reshape(LATENT, rank)
    covariance = factor @ factor.T + diagonal.variance.diag_embed()
    assert_close(q.covariance_matrix, covariance)
    z = q.rsample((7,))
    assert_close(q.log_prob(z), dist.MultivariateNormal(diagonal.mean, covariance).log_prob(z))


def test_low_rank_normal_refuses_bad_sizes():
    with pytest.raises(ValueError, match="rank is 0"):
        posteriors.LowRankNormal(torch_nn.Identity(), 0)
    with pytest.raises(ValueError, match=r"has 10 outputs.*a multiple of 4 for rank 2"):
        posteriors.LowRankNormal(Constant(torch.zeros(10)), 2)(torch.zeros(2, *EVENT))


# Flows


@flows
def test_the_density_of_a_draw_is_that_of_its_noise_over_the_volume_it_spans(kind):
    q = flow(kind)(torch.randn(EVENT, dtype=torch.float64))
    for _ in range(5):
        noise = q.base.sample()
        z = q.transform.inv(noise)
        volume = torch.linalg.slogdet(torch.autograd.functional.jacobian(q.transform.inv, noise)).logabsdet
        assert_close(q.log_prob(z), q.base.log_prob(noise) - volume)


@flows
def test_the_density_of_a_draw_is_kept_and_is_the_density(kind):
    posterior = flow(kind)
    x = torch.randn(6, *EVENT, dtype=torch.float64)
    q = as_pyro(posterior(x)).expand((7, 6))
    z = q()
    calls = passes(posterior)
    kept = q.log_prob(z)
    assert not calls
    assert_close(kept, posterior(x).log_prob(z.clone()))
    assert calls
    # In float32, to its precision.
    posterior, x = posterior.float(), x.float()
    z, log_prob = posterior(x).rsample_and_log_prob((7,))
    assert_close(log_prob, posterior(x).log_prob(z), rtol=1e-4, atol=1e-4)


@flows
def test_one_pass_through_each_network_draws_and_weighs(kind):
    prior, likelihood, x = linear_gaussian()
    posterior = flow(kind)
    vae = VAE(prior, likelihood, posterior)
    calls = passes(posterior)
    Trace_ELBO().loss_and_grads(vae.model, vae.guide, x)
    assert len(calls) == 2
    calls.clear()
    Trace_ELBO(5, vectorize_particles=True, max_plate_nesting=1).loss(vae.model, vae.guide, x)
    assert len(calls) == 2
    layout = weights.find_layout(vae.model, vae.guide, x)
    calls.clear()
    weights.terms(vae.model, vae.guide, x, 5, layout)
    assert len(calls) == 2
    # At latents from elsewhere, one pass for each dimension.
    latents = {"z": torch.randn(5, len(x), LATENT, dtype=torch.float64)}
    calls.clear()
    weights.terms_at(vae.model, vae.guide, x, latents, 5, layout)
    assert len(calls) >= 2 * LATENT


@flows
def test_draws_are_not_kept_for_longer_than_their_trace(kind):
    prior, likelihood, x = linear_gaussian()
    vae = VAE(prior, likelihood, flow(kind))
    gc.disable()
    try:
        trace = poutine.trace(vae.guide).get_trace(x)
        trace.compute_log_prob()
        z = weakref.ref(trace.nodes["z"]["value"])
        assert z() is not None
        del trace
        assert z() is None
    finally:
        gc.enable()


@flows
@pytest.mark.parametrize("latent", [1, 2, 20])
def test_flows_start_close_to_a_normal(kind, latent):
    posterior = kind(nn.mlp(EVENT, [8], 2 * latent + CONTEXT), latent, CONTEXT)
    q = posterior(torch.randn(6, *EVENT))
    noise = torch.randn(100, 6, latent)
    z = q.transform.inv(q.base.mean + q.base.stddev * noise)
    loc = q.transform.inv(q.base.mean)
    scale = z.std(0) / noise.std(0)
    assert ((z - loc) / scale - noise).abs().max() < 0.1


@flows
def test_the_network_of_a_flow_gives_the_locations_first(kind):
    """At the identity, the density is that of a normal around them."""
    outputs = torch.cat([torch.tensor([4.0, -3.0, 1.0]), torch.zeros(LATENT + CONTEXT)])
    posterior = kind(Constant(outputs), LATENT, CONTEXT).double()
    with torch.no_grad():
        for module in posterior.modules():
            if isinstance(module, torch_nn.Linear):
                module.weight.zero_()
    q = posterior(torch.zeros(1, *EVENT, dtype=torch.float64))
    loc, beside = outputs[:LATENT].double(), torch.randn(50, 1, LATENT, dtype=torch.float64)
    assert_close(q.log_prob(loc + beside), q.log_prob(loc - beside))
    assert (q.log_prob(loc + beside) < q.log_prob(loc)).all()


@flows
def test_flows_have_no_mean(kind):
    prior, likelihood, x = linear_gaussian()
    with pytest.raises(NotImplementedError, match="has no mean"):
        VAE(prior, likelihood, flow(kind)).encode(x)


@flows
def test_flows_refuse_bad_sizes(kind):
    network = nn.mlp(EVENT, [8], FLOW)
    with pytest.raises(ValueError, match="latent_dim is 0"):
        kind(network, 0, CONTEXT)
    with pytest.raises(ValueError, match="context_dim is 0"):
        kind(network, LATENT, 0)
    with pytest.raises(ValueError, match="transforms is 0"):
        kind(network, LATENT, CONTEXT, transforms=0)
    with pytest.raises(ValueError, match="hidden_features is -1"):
        kind(network, LATENT, CONTEXT, hidden_features=[8, -1])
    with pytest.raises(ValueError, match=rf"has {FLOW} outputs.*context_dim = {FLOW + 1}"):
        kind(network, LATENT, CONTEXT + 1)(torch.zeros(2, *EVENT))


def test_splines_refuse_one_bin():
    with pytest.raises(ValueError, match="bins is 1"):
        posteriors.NeuralSpline(nn.mlp(EVENT, [8], FLOW), LATENT, CONTEXT, bins=1)


# What correlations are for


@pytest.mark.parametrize(
    "make",
    [
        lambda: posteriors.FullNormal(nn.mlp(4, [], 5)),
        lambda: posteriors.LowRankNormal(nn.mlp(4, [16], 8), 2),
        lambda: posteriors.InverseAutoregressive(nn.mlp(4, [], 5), 2, 1, hidden_features=[8]),
        lambda: posteriors.NeuralSpline(nn.mlp(4, [], 5), 2, 1, hidden_features=[8]),
    ],
    ids=["FullNormal", "LowRankNormal", "InverseAutoregressive", "NeuralSpline"],
)
def test_it_gets_closer_to_a_correlated_posterior_than_any_diagonal_normal(make):
    # Two columns of W that point much the same way: the latents explain each other away.
    weight = torch.tensor([[1.0, 0.9], [0.9, 1.0], [1.0, 1.0], [0.8, 0.9]], dtype=torch.float64)
    likelihood = LinearLikelihood(weight, torch.zeros(4).double(), 0.5).requires_grad_(False)
    precision = torch.eye(2).double() + weight.T @ weight / 0.5**2
    # min over diagonal normals of KL(q || p(z | x)), the same for all x.
    mean_field_gap = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    vae = VAE(priors.StandardNormal(2).double(), likelihood, make().double())
    x = likelihood(torch.randn(50, 2, dtype=torch.float64)).sample()
    elbo = Trace_ELBO(5, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(vae.model, vae.guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}), elbo)
    for _ in range(300):
        svi.step(x)
    with torch.no_grad():
        gap = exact_log_evidence(likelihood, x).mean() - weights.log_weights(vae.model, vae.guide, x, 200).mean()
    assert gap < mean_field_gap / 4


# The exact posterior of a linear-Gaussian model


class LearnedScale(torch_nn.Module):
    """A linear likelihood of arrays ``[2, 2]`` with a scale for each pixel, all of it learned."""

    def __init__(self):
        super().__init__()
        self.network, self.log_scale = nn.mlp(LATENT, [], (2, 2)), torch_nn.Parameter(torch.randn(2, 2))

    def forward(self, z):
        return dist.Normal(self.network(z), self.log_scale.exp()).to_event(2)

    def log_evidence(self, x):
        weight, variance = self.network[0].weight, (2 * self.log_scale).exp().flatten()
        marginal = dist.MultivariateNormal(self.network[0].bias, weight @ weight.T + variance.diag())
        return marginal.log_prob(x.flatten(-2))


def exact_vae():
    likelihood = LearnedScale()
    return VAE(priors.StandardNormal(LATENT), likelihood, posteriors.LinearGaussian(likelihood, LATENT))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_with_the_exact_posterior_every_log_weight_is_the_evidence(dtype, tolerance):
    vae = exact_vae().to(dtype)
    x = vae.sample(30)
    exact = vae.likelihood.log_evidence(x).expand(7, -1)
    log_w = weights.log_weights(vae.model, vae.guide, x, 7)
    assert log_w.dtype == dtype
    assert_close(log_w, exact, rtol=tolerance, atol=4 * tolerance)


def test_it_stays_exact_while_the_likelihood_is_trained():
    """Every gradient of the ELBO is that of log p(x), without noise, before and after each step."""
    vae = exact_vae().double()
    assert {id(p) for p in vae.posterior.parameters()} == {id(p) for p in vae.likelihood.parameters()}
    x = torch.randn(30, 2, 2, dtype=torch.float64)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(5):
        parameters = list(vae.likelihood.parameters())
        exact = vae.likelihood.log_evidence(x)
        log_w = weights.log_weights(vae.model, vae.guide, x)[0]
        for ours, theirs in zip(*(torch.autograd.grad(v.sum(), parameters) for v in (log_w, exact)), strict=True):
            assert_close(ours, theirs)
        assert -svi.step(x) == pytest.approx(exact.sum().item(), rel=1e-10)
    assert (vae.likelihood.log_evidence(x) - exact).sum() > 0


def test_a_new_product_of_experts_is_the_posterior_of_a_linear_model_with_noise_one():
    """Whichever features are observed."""
    experts = posteriors.ProductOfExperts(torch_nn.Identity(), EVENT[0], LATENT).double()
    x = torch.randn(6, *EVENT, dtype=torch.float64)
    x[1:][torch.rand(5, *EVENT) < 0.4] = torch.nan
    for row in x:
        seen = ~row.isnan()
        likelihood = LinearLikelihood(experts.directions[seen], torch.zeros(int(seen.sum())).double(), 1.0)
        exact, q = exact_posterior(likelihood, row[seen]), experts(row)
        assert_close(q.mean, exact.mean)
        assert_close(q.covariance_matrix, exact.covariance_matrix)


def test_a_new_product_of_experts_doubles_the_precision_of_the_prior_by_any_number_of_features():
    """On average; here over 4000 units, whose precisions have a standard deviation of at most 1."""
    for features in (2, 50):
        experts = posteriors.ProductOfExperts(torch_nn.Identity(), features, 4000)
        precision = 1 + experts.directions.detach().square().sum(0)
        assert precision.mean().item() == pytest.approx(2, abs=5 / 4000**0.5)  # 5 standard errors


def test_linear_gaussian_refuses_what_is_not():
    class Other(torch_nn.Module):
        def __init__(self, make):
            super().__init__()
            self.make = make

        def forward(self, z):
            return self.make(z)

    for make, message in (
        (lambda z: dist.Normal(z.tanh(), 1.0).to_event(1), "not affine in z"),
        (lambda z: dist.Normal(z, z.exp()).to_event(1), "scales of .* depend on z"),
        (lambda z: dist.Bernoulli(logits=z).to_event(1), "independent normals"),
        (lambda z: dist.Normal(z, 1.0), "one event"),
    ):
        with pytest.raises(ValueError, match=message):
            posteriors.LinearGaussian(Other(make), LATENT)
    with pytest.raises(ValueError, match="latent_dim is 0"):
        posteriors.LinearGaussian(LearnedScale(), 0)


# KL divergences


def correlated(kind, *batch):
    loc, factor = torch.randn(*batch, LATENT, dtype=torch.float64), torch.randn(*batch, LATENT, 2, dtype=torch.float64)
    diagonal = torch.rand(*batch, LATENT, dtype=torch.float64) + 0.2
    if kind == "full":
        return dist.MultivariateNormal(loc, factor @ factor.mT + diagonal.diag_embed())
    return dist.LowRankMultivariateNormal(loc, factor, diagonal)


kinds = pytest.mark.parametrize("kind", ["full", "low rank"])


@kinds
def test_divergence_from_correlated_to_independent_normals(kind):
    q = correlated(kind, 6)
    loc, scale = torch.randn(LATENT).double(), torch.rand(LATENT).double() + 0.5
    p = dist.Normal(loc, scale).to_event(1)
    kl = kl_divergence(q, p.expand((6,)))
    # The prior as a multivariate normal: torch knows that one.
    assert_close(kl, kl_divergence(q, dist.MultivariateNormal(loc, scale_tril=scale.diag()).expand((6,))))
    # By Monte Carlo; beyond 5 standard errors in 6 draws of one in 300,000.
    z = q.sample((20_000,))
    draws = q.log_prob(z) - p.log_prob(z)
    assert ((draws.mean(0) - kl).abs() < 5 * draws.std(0) / math.sqrt(len(z))).all()
    # Under plates of particles and datapoints, and wrapped for Pyro.
    for wrapped in (torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1), p):
        expanded = kl_divergence(q.expand((7, 6)), as_pyro(wrapped).expand((7, 6)))
        assert_close(expanded, kl.expand(7, 6))


@kinds
def test_divergence_is_zero_only_between_equals(kind):
    q = correlated(kind, 6)
    p = dist.Normal(q.mean, q.stddev).to_event(1)
    same = dist.MultivariateNormal(q.mean, q.variance.diag_embed())
    if kind == "low rank":
        same = dist.LowRankMultivariateNormal(q.mean, torch.zeros(6, LATENT, 1).double(), q.variance)
    assert_close(kl_divergence(same, p), torch.zeros(6).double(), rtol=0, atol=1e-12)
    assert (kl_divergence(q, p) > 1e-3).all()


@kinds
def test_no_divergence_is_made_up_for_other_priors(kind):
    with pytest.raises(NotImplementedError):
        kl_divergence(correlated(kind), dist.Laplace(torch.zeros(LATENT), 1.0).to_event(1))
    with pytest.raises(NotImplementedError):  # one event of all rows
        kl_divergence(correlated(kind), dist.Normal(torch.zeros(6, LATENT), 1.0).to_event(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: posteriors.FullNormal(nn.mlp(EVENT, [8], FULL)),
        lambda: posteriors.LowRankNormal(nn.mlp(EVENT, [8], 4 * LATENT), 2),
    ],
    ids=["FullNormal", "LowRankNormal"],
)
def test_pyros_mean_field_elbo_has_no_noise_but_that_of_the_likelihood(make):
    prior, likelihood, x = linear_gaussian()
    vae = VAE(prior, likelihood, make().double())
    check = evidence.check_elbo(vae.model, vae.guide, x, num_particles=200)
    assert check.passed, check.summary()
    assert check.analytic is not None
    with torch.no_grad():
        likelihood.weight.zero_()
    elbo = TraceMeanField_ELBO(2, vectorize_particles=True, max_plate_nesting=1)
    losses = [elbo.loss(vae.model, vae.guide, x) for _ in range(3)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-12)
