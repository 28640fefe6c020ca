"""The log-weights: equal to Pyro's trace sums, exact where the posterior is, and clear about what they cannot serve."""

from __future__ import annotations

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_gaussian import exact_log_evidence, exact_posterior, random_instance
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn as torch_nn
from torch.testing import assert_close

from pyro_vae import VAE, likelihoods, nn, posteriors, priors, weights

instances = given(seed=st.integers(0, 2**31), latent=st.integers(1, 6), event=st.integers(1, 8))


@instances
@settings(max_examples=40)
def test_every_weight_is_the_evidence_at_the_exact_posterior(seed, latent, event):
    vae, x = random_instance(seed, latent, event, n=5)
    log_w = weights.log_weights(vae.model, vae.guide, x, 3)
    assert log_w.shape == (3, 5)
    assert_close(log_w.detach(), exact_log_evidence(vae.likelihood, x).expand(3, 5), rtol=1e-9, atol=1e-9)


@instances
@settings(max_examples=40)
def test_weight_over_evidence_is_exact_over_approximate_posterior(seed, latent, event):
    """p(x, z) / q(z | x) = p(x) p(z | x) / q(z | x), draw by draw, for any q."""
    vae, x = random_instance(seed, latent, event, n=4, shift=0.7, widen=1.4)
    layout = weights.find_layout(vae.model, vae.guide, x)
    model_trace, guide_trace = weights.vectorized_trace_pair(vae.model, vae.guide, x, 3, layout)
    z = guide_trace.nodes["z"]["value"]
    log_ratio = exact_posterior(vae.likelihood, x).log_prob(z) - vae.posterior(x).log_prob(z)
    log_w = weights.terms_of(model_trace, guide_trace, layout).log_weights
    assert_close(log_w, exact_log_evidence(vae.likelihood, x) + log_ratio, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_particles", [1, 5])
def test_their_mean_is_pyros_elbo_on_the_same_noise_value_and_gradient(vae, x, num_particles):
    elbo = Trace_ELBO(num_particles, vectorize_particles=True, max_plate_nesting=1)
    torch.manual_seed(1)
    elbo.differentiable_loss(vae.model, vae.guide, x).backward()
    expected = [parameter.grad.clone() for parameter in vae.parameters()]
    torch.manual_seed(1)
    loss = elbo.loss(vae.model, vae.guide, x)
    vae.zero_grad()
    torch.manual_seed(1)
    ours = -weights.log_weights(vae.model, vae.guide, x, num_particles).mean(0).sum()
    ours.backward()
    assert_close(ours.item(), loss, rtol=1e-6, atol=1e-5)
    for parameter, gradient in zip(vae.parameters(), expected, strict=True):
        assert gradient.abs().sum() > 0
        assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)


def test_terms_are_the_log_densities(vae, x):
    layout = weights.find_layout(vae.model, vae.guide, x)
    model_trace, guide_trace = weights.vectorized_trace_pair(vae.model, vae.guide, x, 3, layout)
    z = guide_trace.nodes["z"]["value"]
    terms = weights.terms_of(model_trace, guide_trace, layout)
    assert z.shape == (3, 7, 2)
    assert_close(terms.log_likelihood, vae.likelihood(z).log_prob(x))
    assert_close(terms.log_prior, vae.prior().log_prob(z))
    assert_close(terms.log_posterior, vae.posterior(x).log_prob(z))


def tutorial_programs():
    """A pair in the style of Pyro's tutorials: plain functions, two latent sites, nested plates, discrete data."""

    def model(x):
        with pyro.plate("rows", len(x), dim=-2):
            rate = pyro.sample("rate", dist.Normal(torch.zeros(len(x), 1), 1.0))
            with pyro.plate("columns", x.shape[1], dim=-1):
                effect = pyro.sample("effect", dist.Normal(rate, 0.5))
                pyro.sample("x", dist.Poisson(effect.exp()), obs=x)

    def guide(x):
        with pyro.plate("rows", len(x), dim=-2):
            rate = pyro.sample("rate", dist.Normal(x.mean(1, keepdim=True), 0.7))
            with pyro.plate("columns", x.shape[1], dim=-1):
                pyro.sample("effect", dist.Normal(rate, 0.6))

    return model, guide


def test_any_programs_with_a_data_plate():
    x = torch.poisson(torch.ones(6, 3))
    model, guide = tutorial_programs()
    layout = weights.find_layout(model, guide, x)
    assert (layout.data_plate, layout.data_dim, layout.particle_dim) == ("rows", -2, -3)
    torch.manual_seed(3)
    log_w = weights.log_weights(model, guide, x, 4)
    torch.manual_seed(3)
    loss = Trace_ELBO(4, vectorize_particles=True, max_plate_nesting=2).loss(model, guide, x)
    assert log_w.shape == (4, 6)
    assert_close(-log_w.mean(0).sum().item(), loss, rtol=1e-6, atol=1e-5)


def two_plates(first, second, n):
    def model(x):
        with pyro.plate(first, 3, dim=-2), pyro.plate(second, n, dim=-1):
            _normal("x", _normal("z"), obs=x.expand(3, n))

    def guide(x):  # noqa: ARG001
        with pyro.plate(first, 3, dim=-2), pyro.plate(second, n, dim=-1):
            _normal("z")

    return model, guide


def test_of_two_plates_of_one_size_the_one_called_data_is_taken():
    assert weights.find_layout(*two_plates("a", "b", 4), torch.zeros(4)).data_dim == -1
    assert weights.find_layout(*two_plates("a", "data", 3), torch.zeros(3)).data_dim == -1
    assert weights.find_layout(*two_plates("data", "b", 3), torch.zeros(3)).data_dim == -2
    with pytest.raises(ValueError, match=r"the plates \['a', 'b'\] all have size 3, the number of rows"):
        weights.find_layout(*two_plates("a", "b", 3), torch.zeros(3))


def test_an_auxiliary_variable_that_is_the_latent_in_other_coordinates():
    """As in Pyro's AutoContinuous guides: here z = exp(u), with a log-normal density."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.LogNormal(0.0, 1.0)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            u = pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(u.exp(), log_density=-u))

    def direct(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.LogNormal(0.0, 1.0))

    x, log_w = torch.randn(4), []
    for proposal in (guide, direct):
        torch.manual_seed(1)
        log_w.append(weights.log_weights(model, proposal, x, 5))
    assert_close(*log_w)


def test_networks_that_do_not_broadcast_are_explained():
    class Flattening(torch_nn.Module):
        def forward(self, z):
            return z.reshape(-1, 2)

    with pytest.warns(UserWarning, match="does not broadcast over a leading dimension of z"):
        vae = VAE(priors.StandardNormal(2), likelihoods.Bernoulli(Flattening()), posteriors.Normal(nn.mlp(2, [], 4)))
    SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"does not broadcast .*nn\.Broadcast"):
        weights.log_weights(vae.model, vae.guide, torch.zeros(5, 2), 3)


def test_programs_that_do_not_broadcast_are_explained():
    network = torch_nn.Sequential(torch_nn.Linear(2, 8), torch_nn.BatchNorm1d(8), torch_nn.Linear(8, 2)).eval()

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(network(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    with pytest.raises((RuntimeError, ValueError)) as caught:
        weights.log_weights(model, guide, torch.zeros(5, 2), 3)
    assert "3 particles at once" in caught.value.__notes__[0]
    assert "nn.Broadcast" in caught.value.__notes__[0]


def test_scales_are_left_out_and_masks_kept(vae, x):
    def scaled(x):
        with poutine.scale(scale=10.0):
            vae.model(x)

    mask = torch.tensor([True, False, True, True, True, False, True])

    def masked(x):
        with poutine.mask(mask=mask):
            vae.model(x)

    torch.manual_seed(4)
    plain = weights.log_weights(vae.model, vae.guide, x, 3)
    torch.manual_seed(4)
    assert_close(weights.log_weights(scaled, vae.guide, x, 3), plain)
    torch.manual_seed(4)
    terms = weights.terms(masked, vae.guide, x, 3, weights.find_layout(vae.model, vae.guide, x))
    assert (terms.log_likelihood[:, ~mask] == 0).all()
    assert (terms.log_likelihood[:, mask] != 0).all()


def test_finding_the_layout_draws_no_random_numbers(vae, x):
    before = torch.get_rng_state()
    weights.find_layout(vae.model, vae.guide, x)
    assert torch.equal(before, torch.get_rng_state())


def _normal(name, loc=0.0, **kwargs):
    return pyro.sample(name, dist.Normal(loc, 1.0), **kwargs)


def _local_model(x):
    with pyro.plate("data", len(x)):
        _normal("x", _normal("z"), obs=x)


def _local_guide(x):
    with pyro.plate("data", len(x)):
        _normal("z")


def _global_model(x):
    level = _normal("level")
    with pyro.plate("data", len(x)):
        _normal("x", _normal("z", level), obs=x)


def _global_guide(x):
    _normal("level")
    _local_guide(x)


def _other_guide(x):
    with pyro.plate("data", len(x)):
        _normal("y")


def _extra_guide(x):
    with pyro.plate("data", len(x)):
        _normal("z")
        _normal("y")


def _point_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Delta(x))


def _auxiliary_guide(x):
    with pyro.plate("data", len(x)):
        _normal("z", pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True}))


def _no_plate_model(x):
    pyro.sample("x", dist.Normal(_normal("z"), 1.0).expand([len(x)]).to_event(1), obs=x)


def _no_plate_guide(x):  # noqa: ARG001
    _normal("z")


def _fixed_size_model(x):
    with pyro.plate("data", 9):
        _normal("x", _normal("z"), obs=x.mean().expand(9))


def _fixed_size_guide(x):  # noqa: ARG001
    with pyro.plate("data", 9):
        _normal("z")


def _moved_guide(x):
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0))


def _loop_model(x):
    for i in pyro.plate("data", len(x)):
        _normal(f"x{i}", _normal(f"z{i}"), obs=x[i])


def _loop_guide(x):
    for i in pyro.plate("data", len(x)):
        _normal(f"z{i}")


@pytest.mark.parametrize(
    ("model", "guide", "message"),
    [
        (_no_plate_model, _no_plate_guide, "no data plate: .*'z' of the model"),
        (_loop_model, _loop_guide, "no data plate"),
        (_global_model, _global_guide, "site 'level' of the model lies outside of the data plate 'data'"),
        (_local_model, _other_guide, "latent site 'z' of the model is not in the guide, which has \\['y'\\]"),
        (_local_model, _extra_guide, "site 'y' of the guide is not a latent site of the model"),
        (
            _fixed_size_model,
            _fixed_size_guide,
            "no plate of size 3, the number of rows of x, only 'data' of size 9",
        ),
        (_local_model, _point_guide, "site 'z' of the guide is a point mass"),
        (_local_model, _auxiliary_guide, "site 'z' of the guide is random given its auxiliary site 'u'"),
        (_local_model, _moved_guide, "the data plate 'data' is at dim"),
    ],
)
def test_programs_that_do_not_fit(model, guide, message):
    with pytest.raises(ValueError, match=message):
        weights.log_weights(model, guide, torch.zeros(3), 2)


@pytest.mark.parametrize("num_particles", [0, -1, 2.5, True, "3"])
def test_number_of_particles(vae, x, num_particles):
    with pytest.raises(ValueError, match="num_particles is"):
        weights.log_weights(vae.model, vae.guide, x, num_particles)
