"""Priors: their densities, where they start, and what they share."""

from __future__ import annotations

import copy

import pyro
import pytest
import torch
import zuko
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors, weights
from pyro_vae.distributions import Mixture

EVENT = (3,)


def posterior(latent=2):
    return posteriors.Normal(nn.mlp(EVENT, [8], 2 * latent))


class FlowPosterior(torch.nn.Module):
    """A user's own posterior: one of zuko's flows."""

    def __init__(self):
        super().__init__()
        self.flow = zuko.flows.MAF(2, context=3, transforms=1, hidden_features=[8])

    def forward(self, x):
        return self.flow(x)


def vae_with(prior, q):
    return VAE(prior, likelihoods.Bernoulli(nn.mlp(2, [8], EVENT)), q)


def vamp_vae(q=None):
    q = q or posterior()
    return vae_with(priors.VampPrior(q, torch.randn(5, *EVENT)), q)


def grid(limit=15.0, nodes=601):
    line = torch.linspace(-limit, limit, nodes, dtype=torch.float64)
    return torch.cartesian_prod(line, line), 2 * (line[1] - line[0]).log()


LEARNED = {
    "Mixture": lambda: priors.Mixture(2, 3),
    "one component": lambda: priors.Mixture(2, 1),
    "VampPrior": lambda: priors.VampPrior(posterior(), torch.randn(4, *EVENT)),
    "VampPrior of flows": lambda: priors.VampPrior(FlowPosterior(), torch.randn(4, *EVENT)),
}


@pytest.mark.parametrize("name", LEARNED)
def test_density_and_draws_agree(name):
    """The density integrates to one; a statistic of the draws has its mean within 5 standard errors."""
    prior = LEARNED[name]().double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    z, log_area = grid()
    p = prior()
    density = (p.log_prob(z) + log_area).exp()
    assert density.sum().item() == pytest.approx(1, abs=1e-6)
    draws = p.sample((40_000,))

    def statistics(z):
        return torch.stack([z[..., 0], z[..., 1], z[..., 0] * z[..., 1], z.square().sum(-1), (z[..., 0] > 0.5)], -1)

    drawn = statistics(draws)
    exact = density @ statistics(z)
    discretization = torch.tensor([1e-6, 1e-6, 1e-6, 1e-6, 0.02], dtype=torch.float64)
    assert ((drawn.mean(0) - exact).abs() < 5 * drawn.std(0) / len(draws) ** 0.5 + discretization).all()


def test_laplace_has_mean_zero_and_variance_one():
    p = priors.Laplace(3).double()()
    assert_close(p.mean, torch.zeros(3, dtype=torch.float64))
    assert_close(p.variance, torch.ones(3, dtype=torch.float64), rtol=1e-7, atol=0)
    assert (p.batch_shape, p.event_shape) == ((), (3,))


def test_the_divergence_from_laplace_is_analytic():
    """And equal to its estimate, within 5 standard errors of 10^5 draws."""
    p = priors.Laplace(2)()
    q = dist.Normal(torch.tensor([0.3, -2.0]), torch.tensor([0.2, 1.4])).to_event(1)
    z = q.sample((100_000,))
    ratios = q.log_prob(z) - p.log_prob(z)
    assert abs(ratios.mean() - kl_divergence(q, p)) < 5 * ratios.std() / len(z) ** 0.5
    # Pyro finds it: its ELBO has no noise but that of the likelihood.
    vae = vae_with(priors.Laplace(2), posterior())
    x = vae.sample(20)
    torch.manual_seed(1)
    log_likelihood = weights.terms(
        vae.model, vae.guide, x, 1, weights.find_layout(vae.model, vae.guide, x)
    ).log_likelihood
    torch.manual_seed(1)
    loss = TraceMeanField_ELBO().loss(vae.model, vae.guide, x)
    assert loss == pytest.approx((kl_divergence(vae.posterior(x), vae.prior()) - log_likelihood).sum().item(), rel=1e-5)


def test_a_mixture_starts_as_the_standard_normal_on_average():
    """Within 5 standard errors of 10^5 components, at each of 50 places; and no two components coincide."""
    prior = priors.Mixture(3, 100_000).double()
    z = torch.randn(50, 3, dtype=torch.float64)
    with torch.no_grad():
        p = prior()
        each = p.component_distribution.log_prob(z.unsqueeze(1)).exp()
        exact = priors.StandardNormal(3).double()().log_prob(z).exp()
        assert ((each.mean(1) - exact).abs() < 5 * each.std(1) / 100_000**0.5).all()
    assert torch.cdist(prior.loc[:1000], prior.loc[:1000]).add(torch.eye(1000)).min() > 1e-4


def test_a_mixture_is_torchs():
    """The same density, moments and shapes, expanded or not."""
    logits, loc = torch.randn(4), torch.randn(4, 2)
    ours = Mixture(logits, dist.Normal(loc, 0.5).to_event(1))
    torchs = dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, 0.5).to_event(1))
    z = torch.randn(6, 5, 2)
    assert_close(ours.log_prob(z), torchs.log_prob(z))
    assert_close(ours.expand((6, 5)).log_prob(z), torchs.expand((6, 5)).log_prob(z))
    assert_close(ours.expand((6, 5)).log_prob(z[0, 0]), torchs.expand((6, 5)).log_prob(z[0, 0]))
    assert_close((ours.mean, ours.variance), (torchs.mean, torchs.variance))
    assert ours.support.check(z).all()
    for shape in ((), (3,), (2, 3)):
        assert ours.sample(shape).shape == torchs.sample(shape).shape
        assert ours.expand((6, 5)).sample(shape).shape == (*shape, 6, 5, 2)


def test_draws_from_a_mixture_are_independent():
    """Of neighbors, each pair of components is as frequent as its product: 5 standard deviations, 9 pairs."""
    weights = torch.tensor([0.6, 0.3, 0.1])
    p = Mixture(weights.log(), dist.Normal(torch.tensor([[-100.0], [0.0], [100.0]]), 1.0).to_event(1))
    component = (p.sample((90_000,)).squeeze(-1) / 100).round().long() + 1
    pairs = component[:-1] * 3 + component[1:]
    expected = torch.outer(weights, weights).flatten()
    error = (2 * expected * (1 - expected) / len(pairs)).sqrt()  # twice: pairs overlap
    assert ((pairs.bincount(minlength=9) / len(pairs) - expected).abs() < 5 * error).all()


def test_annealing_through_a_mixture_finds_its_evidence():
    """Latents are moved by gradients, for which the support must be known. Within 5 standard errors, of 3 datapoints."""
    vae = vae_with(priors.Mixture(2, 4), posterior()).double()
    x = vae.sample(3)
    z, log_area = grid()
    with torch.no_grad():
        log_joint = vae.prior().log_prob(z) + vae.likelihood(z).log_prob(x.unsqueeze(1))
        exact = log_joint.logsumexp(1) + log_area
    result = evidence.annealed(vae.model, vae.guide, x, num_chains=64, num_temperatures=20, num_leapfrog=3)
    assert ((result.log_prob - exact).abs() < 5 * result.std_error + 1e-6).all()
    assert (result.std_error < 0.2).all()


def test_vamp_prior_is_the_posterior_averaged_over_pseudo_inputs():
    for q in (posterior(), FlowPosterior()):
        prior = priors.VampPrior(q, torch.randn(4, *EVENT))
        z = torch.randn(6, 5, 2)
        each = torch.stack([q(pseudo_input).log_prob(z) for pseudo_input in prior.pseudo_inputs])
        assert_close(prior().log_prob(z), each.exp().mean(0).log())


def test_no_prior_is_better_than_the_posterior_averaged_over_the_data():
    """Hoffman & Johnson 2016: the mean of log p(z), z from q(z | x) of all data, is highest for their average."""
    q, x = posterior(), torch.randn(200, *EVENT)
    with torch.no_grad():
        z = q(x).sample((200,))
        best = priors.VampPrior(q, x)().log_prob(z)
        for other in (priors.StandardNormal(2), priors.Laplace(2), priors.VampPrior(q, x[:20])):
            gain = best - other().log_prob(z)
            assert gain.mean() > 5 * gain.std() / gain.numel() ** 0.5


def test_vamp_prior_shares_the_posterior():
    vae = vamp_vae()
    for one in (vae, copy.deepcopy(vae), copy.deepcopy(vae).double()):
        assert one.prior.posterior is one.posterior
    names = [name for name, _ in vae.named_parameters()]
    assert len(names) == len({id(parameter) for parameter in vae.parameters()})
    assert sum("posterior" in name for name in names) == len(list(vae.posterior.parameters()))
    # Either role alone reaches the parameters of the posterior, and the prior its pseudo-inputs.
    vae.prior().log_prob(torch.randn(6, 2)).sum().backward()
    for parameter in (*vae.posterior.parameters(), vae.prior.pseudo_inputs):
        assert parameter.grad.abs().sum() > 0


def test_svi_steps_shared_parameters_once():
    """Model and guide both declare them: SVI moves them as one step of PyTorch's Adam on the same loss does."""
    vae, x = vamp_vae(), torch.rand(20, *EVENT).bernoulli()
    other = copy.deepcopy(vae)
    adam = torch.optim.Adam(other.parameters(), lr=0.01)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for seed in range(3):
        torch.manual_seed(seed)
        loss = svi.step(x)
        torch.manual_seed(seed)
        adam.zero_grad()
        bound = -weights.log_weights(other.model, other.guide, x, 1).sum()
        bound.backward()
        adam.step()
        assert loss == pytest.approx(bound.item(), rel=1e-5)
    assert vae.prior.posterior is vae.posterior
    for (name, mine), theirs in zip(vae.named_parameters(), other.parameters(), strict=True):
        assert_close(mine, theirs, msg=name)


def test_pseudo_inputs_can_be_kept_where_data_are():
    q = posterior()
    prior = priors.VampPrior(torch.nn.Sequential(torch.nn.Hardtanh(0, 1), q), 3 * torch.randn(4, *EVENT))
    vae = vae_with(prior, q)
    assert len(list(vae.parameters())) == len(list(vae_with(priors.StandardNormal(2), q).parameters())) + 1
    z = torch.randn(5, 2)
    assert_close(prior().log_prob(z), priors.VampPrior(q, prior.pseudo_inputs.clamp(0, 1))().log_prob(z))


@pytest.mark.parametrize("flow", [zuko.flows.NSF, zuko.flows.MAF, zuko.flows.RealNVP])
def test_zukos_flows_are_priors_as_they_stand(flow):
    """Within 5 standard errors of quadrature, which is exact to 10^-3 where a spline has kinks; 5 datapoints."""
    vae = vae_with(flow(2, transforms=2, hidden_features=[8]), posterior()).double()
    x = vae.sample(5)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    before = copy.deepcopy(vae.state_dict())
    for _ in range(20):
        svi.step(x)
    assert any(not torch.equal(before[name], value) for name, value in vae.prior.state_dict(prefix="prior.").items())
    z, log_area = grid()
    with torch.no_grad():
        log_prior = vae.prior().log_prob(z)
        exact = (log_prior + vae.likelihood(z).log_prob(x.unsqueeze(1))).logsumexp(1) + log_area
    result = evidence.importance(vae.model, vae.guide, x, num_samples=10_000)
    assert ((result.log_prob - exact).abs() < 5 * result.std_error + 1e-3).all()
    other = vae_with(flow(2, transforms=2, hidden_features=[8]), posterior()).double()
    other.load_state_dict(vae.state_dict())
    assert torch.equal(other.prior().log_prob(z[:9]), vae.prior().log_prob(z[:9]))


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_sizes_are_positive_integers(size):
    for make in (priors.Laplace, priors.StandardNormal, lambda n: priors.Mixture(n, 3)):
        with pytest.raises(ValueError, match="latent_dim"):
            make(size)
    with pytest.raises(ValueError, match="components"):
        priors.Mixture(2, size)


def test_bad_pseudo_inputs_are_refused():
    with pytest.raises(TypeError, match="posterior is of type function"):
        priors.VampPrior(lambda x: x, torch.zeros(2, 3))
    with pytest.raises(TypeError, match=r"pseudo_inputs is of type torch.int64"):
        priors.VampPrior(posterior(), torch.zeros(2, 3, dtype=torch.long))
    with pytest.raises(TypeError, match="pseudo_inputs is of type list"):
        priors.VampPrior(posterior(), [0.0])
    for shape in ((0, 3), ()):
        with pytest.raises(ValueError, match="pseudo_inputs has shape"):
            priors.VampPrior(posterior(), torch.zeros(shape))
    with pytest.raises(ValueError, match="mixture have batch shape"):
        priors.VampPrior(posterior(), torch.zeros(2, 2, 3))()


def test_pseudo_inputs_are_a_copy_of_the_data():
    data = torch.zeros(2, 3)
    prior = priors.VampPrior(posterior(), data)
    with torch.no_grad():
        prior.pseudo_inputs.add_(1.0)
    assert (data == 0).all()
