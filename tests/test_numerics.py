"""Networks, likelihoods and posteriors where numbers are extreme."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn as torch_nn
from torch.testing import assert_close

from pyro_vae import likelihoods, nn, posteriors, priors

raw = st.floats(-(2.0**60), 2.0**60, width=32)  # the square of a scale is still a float32
dtypes = st.sampled_from([torch.float32, torch.float64])


@given(raw=raw, loc=st.floats(-1e3, 1e3, width=32), dtype=dtypes)
def test_normal_posterior_is_stable_in_both_tails(raw, loc, dtype):
    parameters = torch.tensor([[loc, raw]], dtype=dtype, requires_grad=True)
    q = posteriors.Normal(torch_nn.Identity())(parameters)
    torch.manual_seed(0)
    z = q.rsample()
    log_q = q.log_prob(z)
    (gradient,) = torch.autograd.grad(log_q.sum() + z.sum(), parameters)
    assert q.stddev.item() > 0
    assert log_q.isfinite().all()
    assert gradient.isfinite().all()


@given(raw=st.floats(-5, 5), dtype=dtypes)
def test_normal_posterior_scale_is_a_softplus(raw, dtype):
    q = posteriors.Normal(torch_nn.Identity())(torch.tensor([[0.0, raw]], dtype=dtype))
    expected = torch.tensor(raw, dtype=torch.float64).exp().log1p().item()
    assert q.stddev.item() == pytest.approx(expected, abs=4e-4)


@given(logit=raw, pixel=st.sampled_from([0.0, 1.0]), dtype=dtypes)
def test_bernoulli_is_exact_in_both_tails(logit, pixel, dtype):
    logits = torch.tensor([logit], dtype=dtype, requires_grad=True)
    log_p = likelihoods.Bernoulli(torch_nn.Identity())(logits).log_prob(torch.tensor([pixel], dtype=dtype))
    (gradient,) = torch.autograd.grad(log_p, logits)
    t = torch.tensor((2 * pixel - 1) * logit, dtype=torch.float64)
    expected = -torch.logaddexp(torch.zeros_like(t), -t)  # log sigmoid
    assert_close(log_p.double(), expected, rtol=1e-5, atol=1e-7)
    assert_close(gradient[0].double(), pixel - torch.tensor(logit).double().sigmoid(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standard_normal_follows_the_module(dtype):
    prior = priors.StandardNormal(3).to(dtype)
    assert prior().sample().dtype == dtype
    assert prior().event_shape == (3,)
    assert prior.state_dict() == {}


@given(
    batch=st.lists(st.integers(1, 3), max_size=3),
    inputs=st.one_of(st.integers(1, 5), st.lists(st.integers(1, 3), min_size=1, max_size=3)),
    outputs=st.one_of(st.integers(1, 5), st.lists(st.integers(1, 3), min_size=1, max_size=3)),
    hidden=st.lists(st.integers(1, 5), max_size=2),
)
def test_mlp_maps_shapes_under_any_leading_dimensions(batch, inputs, outputs, hidden):
    network = nn.mlp(inputs, hidden, outputs)
    in_shape, out_shape = (tuple([size] if isinstance(size, int) else size) for size in (inputs, outputs))
    x = torch.randn(*batch, *in_shape)
    y = network(x)
    assert y.shape == (*batch, *out_shape)
    first = (0,) * len(batch)
    assert_close(network(x[first].unsqueeze(0))[0], y[first])
    assert sum(isinstance(module, torch_nn.Linear) for module in network) == len(hidden) + 1


@pytest.mark.parametrize(
    ("sizes", "name"),
    [((0, [3], 2), "inputs"), ((2, [-1], 2), "hidden"), ((2, [], (2, 0)), "outputs"), ((2, [], ()), "outputs")],
)
def test_mlp_sizes(sizes, name):
    with pytest.raises(ValueError, match=f"{name} is"):
        nn.mlp(*sizes)


@pytest.mark.parametrize("latent_dim", [0, -1, 2.0])
def test_standard_normal_size(latent_dim):
    with pytest.raises(ValueError, match="latent_dim is"):
        priors.StandardNormal(latent_dim)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("event", [(1,), (1, 4, 4), (787,), (1, 28, 28)])
def test_bernoulli_without_a_gradient_is_bernoulli_with_one(dtype, event):
    z = 30 * torch.randn(5, 7, math.prod(event), dtype=dtype)  # logits, far into both tails
    likelihood = likelihoods.Bernoulli(torch.nn.Unflatten(-1, event))
    for x in (torch.rand(7, *event, dtype=dtype).bernoulli(), torch.rand(7, *event, dtype=dtype)):
        with torch.no_grad():
            quick = likelihood(z).log_prob(x)
        plain = likelihood(z.clone().requires_grad_()).log_prob(x).detach()
        assert quick.shape == (5, 7)
        # Four roundings for each factor (exp, sum, quotient, product), and one of x l, which max(l, 0) may cancel.
        eps = torch.finfo(dtype).eps
        assert_close(quick, plain, rtol=8 * eps, atol=eps * (4 * math.prod(event) + z.abs().sum(-1).max().item()))
