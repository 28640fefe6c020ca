"""Datapoints are taken in blocks only where that changes nothing."""

from __future__ import annotations

import pyro
import pytest
import torch
from conftest import EVENT, small_vae
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import nn as torch_nn
from torch.testing import assert_close

from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors
from pyro_vae.evidence.runner.blocks import Programs


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


X = torch.randn(300, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
EXACT = dist.Normal(torch.zeros((), dtype=torch.float64), 2**0.5).log_prob(X)


def blocks_of(model, guide, x, rows=64):
    return [len(block) for block in Programs(model, guide, x).blocks(rows)]


def amortized(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


def indexed(x):
    """Parameters of each datapoint's own, by its place in the plate."""
    loc = pyro.param("loc", X / 2)
    with pyro.plate("data", len(x)) as index:
        pyro.sample("z", dist.Normal(loc[index], 0.5**0.5))


def whole(x):  # noqa: ARG001
    """Parameters of each datapoint's own, all at once."""
    loc = pyro.param("loc", X / 2)
    with pyro.plate("data", len(loc)):
        pyro.sample("z", dist.Normal(loc, 0.5**0.5))


@pytest.mark.parametrize(("guide", "blocks"), [(amortized, [64, 64, 64, 64, 44]), (indexed, [300]), (whole, [300])])
def test_every_kind_of_exact_guide_gives_the_exact_evidence(guide, blocks):
    assert blocks_of(model, guide, X) == blocks
    result = evidence.importance(model, guide, X, num_samples=20, chunk_size=100)
    assert_close(result.log_prob, EXACT)
    check = evidence.check_elbo(model, guide, X, num_particles=4, chunk_size=100)
    assert check.passed
    assert check.log_weights.value == pytest.approx(EXACT.mean().item())


def test_autoguides():
    guide = AutoNormal(model, create_plates=lambda x: pyro.plate("data", len(x), dim=-1))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(8, vectorize_particles=True, max_plate_nesting=1))
    for _ in range(400):
        svi.step(X)
    assert blocks_of(model, guide, X) == [300]
    result = evidence.importance(model, guide, X, num_samples=2000)
    good = result.pareto_k < 0.5
    assert good.double().mean() > 0.5
    assert ((result.log_prob - EXACT).abs() <= 6 * result.std_error)[good].all()


def test_batch_statistics():
    encoder = torch_nn.Sequential(torch_nn.Flatten(-3), torch_nn.Linear(16, 4), torch_nn.BatchNorm1d(4, momentum=0.0))
    decoder = likelihoods.Bernoulli(nn.mlp(2, [8], EVENT))
    vae = VAE(priors.StandardNormal(2), decoder, posteriors.Normal(encoder))
    x = torch.rand(100, *EVENT).bernoulli()
    assert blocks_of(vae.model, vae.guide, x) == [100]
    assert blocks_of(vae.model, vae.guide, x, rows=100) == [100]
    vae.eval()
    assert blocks_of(vae.model, vae.guide, x) == [64, 36]


def test_nested_plates_and_two_latents():
    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            level = pyro.sample("level", dist.Normal(torch.zeros(len(x), 1), 1.0).mask(True))
            with pyro.plate("columns", x.shape[1], dim=-1):
                effect = pyro.sample("effect", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(level + effect.sum(-1), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("level", dist.Normal(x.mean(1, keepdim=True), 1.0))
            with pyro.plate("columns", x.shape[1], dim=-1):
                pyro.sample("effect", dist.Normal(x.unsqueeze(-1) / 3, 1.0).to_event(1))

    assert blocks_of(model, guide, torch.randn(10, 3), rows=4) == [4, 4, 2]


def test_it_draws_no_random_numbers():
    vae, x = small_vae(), torch.zeros(100, *EVENT)
    state = torch.get_rng_state()
    assert blocks_of(vae.model, vae.guide, x) == [64, 36]
    assert torch.equal(state, torch.get_rng_state())
