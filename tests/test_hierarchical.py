"""Several stochastic layers, on linear-Gaussian hierarchies whose evidence and posterior are known."""

from __future__ import annotations

import copy

import pyro
import pytest
import torch
from linear_gaussian import LinearLikelihood
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import nn as torch_nn
from torch.testing import assert_close

from pyro_vae import BottomUp, HierarchicalVAE, TopDown, evidence, likelihoods, nn, posteriors, priors, weights

PIXELS, LOWER, UPPER = 4, 3, 2


class LinearLayer(torch_nn.Module):
    """p(z | input) = N(W input + b, scale^2 I)."""

    def __init__(self, inputs, outputs, scale):
        super().__init__()
        self.linear, self.scale = torch_nn.Linear(inputs, outputs), scale
        torch_nn.init.normal_(self.linear.weight, std=0.6)

    def forward(self, z):
        return dist.Normal(self.linear(z), self.scale).to_event(1)


def linear(posterior):
    return HierarchicalVAE(
        priors.StandardNormal(UPPER),
        [LinearLayer(UPPER, LOWER, 0.7)],
        LinearLikelihood(torch.randn(PIXELS, LOWER), torch.zeros(PIXELS), 0.8),
        posterior,
    ).double()


def bottom_up():
    return BottomUp(
        [posteriors.Normal(nn.mlp(PIXELS, [8], 2 * LOWER)), posteriors.Normal(nn.mlp(LOWER, [8], 2 * UPPER))]
    )


def top_down():
    features = [nn.mlp(PIXELS, [8], 6), nn.mlp(6, [8], 6)]
    return TopDown(features, [posteriors.Normal(nn.mlp(6, [], 2 * size)) for size in (LOWER, UPPER)])


POSTERIORS = {"bottom up": bottom_up, "top down": top_down}


@pytest.fixture(params=POSTERIORS)
def vae(request):
    return linear(POSTERIORS[request.param]())


@torch.no_grad()
def exact(vae, x):
    """log p(x) with both layers integrated out."""
    top = vae.layers[0].linear
    observe = vae.likelihood(torch.zeros(LOWER, dtype=torch.float64))
    bias = observe.mean
    weight = vae.likelihood(torch.eye(LOWER, dtype=torch.float64)).mean.mT - bias[:, None]
    inner = top.weight @ top.weight.mT + 0.7**2 * torch.eye(LOWER)
    covariance = weight @ inner @ weight.mT + 0.8**2 * torch.eye(PIXELS)
    return dist.MultivariateNormal(weight @ top.bias + bias, covariance).log_prob(x)


def test_evidence_is_exact(vae):
    x = vae.sample(8)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=20_000, proposal=evidence.defensive(0.5))
    good = result.pareto_k < 0.7
    assert good.double().mean() > 0.5
    error = (result.log_prob - exact(vae, x)).abs()
    assert (error <= 6 * result.std_error)[good].all()
    chains = evidence.annealed(vae.model, vae.guide, x[:4], num_chains=64, num_temperatures=100)
    assert ((chains.log_prob - exact(vae, x[:4])).abs() <= 6 * chains.std_error).all()


@pytest.mark.parametrize("name", POSTERIORS)
def test_training_closes_most_of_the_gap(name):
    vae = linear(POSTERIORS[name]())
    for part in (vae.prior, vae.layers, vae.likelihood):
        part.requires_grad_(False)
    x = vae.sample(500)
    before = weights.log_weights(vae.model, vae.guide, x, 20).mean().item()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for _ in range(300):
        svi.step(x)
    after, best = weights.log_weights(vae.model, vae.guide, x, 20).mean().item(), exact(vae, x).mean().item()
    assert best - after < 0.5 * (best - before)
    assert after < best + 0.05


def test_a_gradient_reaches_every_parameter(vae):
    weights.log_weights(vae.model, vae.guide, vae.sample(5), 3).mean().backward()
    for name, parameter in vae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_mean_field_elbo_is_valid_top_down_and_not_bottom_up():
    x = linear(bottom_up()).sample(100)
    ladder = linear(top_down())
    check = evidence.check_elbo(ladder.model, ladder.guide, x, num_particles=50)
    assert check.passed, check.summary()
    assert check.mean_field_valid
    upside_down = linear(BottomUp([LinearLayer(PIXELS, LOWER, 0.9), LinearLayer(LOWER, UPPER, 0.4)]))
    check = evidence.check_elbo(upside_down.model, upside_down.guide, x, num_particles=50)
    assert not check.mean_field_valid


def test_three_layers_and_one():
    likelihood = likelihoods.Bernoulli(nn.mlp(2, [4], (1, 3, 3)))
    image = (1, 3, 3)
    one = HierarchicalVAE(
        priors.StandardNormal(2), [], likelihood, BottomUp([posteriors.Normal(nn.mlp(image, [4], 4))])
    )
    three = HierarchicalVAE(
        priors.StandardNormal(4),
        [posteriors.Normal(nn.mlp(4, [4], 6)), posteriors.Normal(nn.mlp(3, [4], 4))],
        likelihood,
        TopDown(
            [nn.mlp(image, [5], 5), nn.mlp(5, [5], 5), nn.mlp(5, [5], 5)],
            [posteriors.Normal(nn.mlp(5, [], 2 * size)) for size in (2, 3, 4)],
        ),
    )
    for vae, sites in ((one, {"z1": (6, 2)}), (three, {"z3": (6, 4), "z2": (6, 3), "z1": (6, 2)})):
        x = vae.sample(6)
        assert x.shape == (6, *image)
        assert {name: tuple(code.shape) for name, code in vae.encode(x).items()} == sites
        assert vae.reconstruct(x).shape == x.shape
        before = Trace_ELBO(5).loss(vae.model, vae.guide, x)
        svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), TraceMeanField_ELBO())
        for _ in range(60):
            svi.step(x)
        assert Trace_ELBO(5).loss(vae.model, vae.guide, x) < before


def test_the_product_of_two_normals():
    """q is p times what the data say, normalized: checked on a grid."""
    from pyro_vae.models.hierarchical import _product

    p, q = dist.Normal(torch.tensor([0.3]), 2.0).to_event(1), dist.Normal(torch.tensor([-1.0]), 0.4).to_event(1)
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    log_density = p.log_prob(z) + q.log_prob(z)
    log_density = log_density - log_density.logsumexp(0) - (z[1] - z[0]).log()
    assert_close(_product(p, q, 1).log_prob(z)[8000:10500], log_density[8000:10500], rtol=1e-6, atol=1e-6)


def test_copies_and_states(vae):
    x = vae.sample(4)
    other = copy.deepcopy(vae)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)

    def loss(vae):
        torch.manual_seed(0)
        return Trace_ELBO().loss(vae.model, vae.guide, x)

    assert loss(other) != loss(vae)
    other.load_state_dict(vae.state_dict())
    assert loss(other) == loss(vae)


class Bare(torch_nn.Module):
    """Forgot .to_event(1)."""

    def forward(self):
        return dist.Normal(torch.zeros(UPPER), 1.0)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"layers": [posteriors.Normal(nn.mlp(5, [4], 6))]}, ValueError, r"layers\[0\]\(z\), for z2"),
        ({"likelihood": likelihoods.Bernoulli(nn.mlp(7, [4], 4))}, ValueError, r"likelihood\(z\), for z1 of shape"),
        ({"posterior": BottomUp([posteriors.Normal(nn.mlp(4, [4], 6))])}, ValueError, "latents do not match"),
        ({"posterior": BottomUp([posteriors.Normal(nn.mlp(9, [4], 6))])}, ValueError, r"posterior\(x, layers\)"),
        ({"layers": [nn.mlp(2, [4], 6)]}, TypeError, r"layers\[0\].*returned a Tensor"),
        ({"prior": Bare()}, ValueError, r"prior\(\) has batch shape \[2\].*to_event"),
        ({"prior": priors.HypersphericalUniform(2)}, ValueError, "z2 of the posterior lie outside of the support"),
        ({"posterior": posteriors.Normal(nn.mlp(4, [4], 6))}, ValueError, r"posterior\(x, layers\)"),
        ({"layers": ["a"]}, TypeError, r"layers\[0\] is of type str"),
    ],
)
def test_parts_that_do_not_fit(change, error, match):
    parts = {
        "prior": priors.StandardNormal(2),
        "layers": [posteriors.Normal(nn.mlp(2, [4], 6))],
        "likelihood": likelihoods.Bernoulli(nn.mlp(3, [4], 4)),
        "posterior": bottom_up(),
    }
    HierarchicalVAE(**parts)
    with pytest.raises(error, match=match):
        HierarchicalVAE(**parts | change)


def test_a_ladder_of_something_else_than_normals():
    class Full(torch_nn.Module):
        def forward(self, z):
            return dist.MultivariateNormal(z.new_zeros(*z.shape[:-1], LOWER), torch.eye(LOWER))

    with pytest.raises(ValueError, match="is a MultivariateNormal; expected a diagonal Normal"):
        HierarchicalVAE(priors.StandardNormal(2), [Full()], likelihoods.Bernoulli(nn.mlp(3, [4], 4)), top_down())
    with pytest.raises(ValueError, match="1 features and 2 layers"):
        TopDown([nn.mlp(4, [], 4)], [torch_nn.Identity()] * 2)
