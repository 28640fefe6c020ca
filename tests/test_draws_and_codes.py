"""What every model says of itself agrees with its two programs: draws from the prior, codes, reconstructions, its loss."""

from __future__ import annotations

import copy

import pyro
import pytest
import torch
from conftest import EVENT, LATENT
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn as torch_nn
from torch.nn.functional import one_hot
from torch.testing import assert_close

from pyro_vae import (
    VAE,
    BottomUp,
    ConditionalVAE,
    HierarchicalVAE,
    SemiSupervisedVAE,
    TopDown,
    fit,
    likelihoods,
    nn,
    posteriors,
    priors,
)

N, CLASSES, PIXELS = 6, 3, 16


def normal(inputs, outputs):
    return posteriors.Normal(nn.mlp(inputs, [5], 2 * outputs))


def flow(inputs, outputs):
    return posteriors.InverseAutoregressive(nn.mlp(inputs, [5], 2 * outputs + 3), outputs, 3)


def bernoulli(inputs):
    return likelihoods.Bernoulli(nn.mlp(inputs, [5], EVENT))


def vae(posterior):
    return VAE(priors.StandardNormal(LATENT), bernoulli(LATENT), posterior(EVENT, LATENT))


def bottom_up(posterior):
    q = BottomUp([normal(EVENT, 3), posterior(3, LATENT)])
    return HierarchicalVAE(priors.StandardNormal(LATENT), [normal(LATENT, 3)], bernoulli(3), q)


def top_down(posterior):
    q = TopDown([nn.mlp(EVENT, [], 4), nn.mlp(4, [], 4)], [normal(4, 3), posterior(4, LATENT)])
    return HierarchicalVAE(priors.StandardNormal(LATENT), [normal(LATENT, 3)], bernoulli(3), q)


def conditional(posterior):
    q = posterior(PIXELS + CLASSES, LATENT)
    return ConditionalVAE(priors.StandardNormal(LATENT), bernoulli(LATENT + CLASSES), q, conditions=CLASSES)


def semi_supervised(posterior):
    q, classifier = posterior(PIXELS + CLASSES, LATENT), nn.mlp(EVENT, [], CLASSES)
    return SemiSupervisedVAE(
        priors.StandardNormal(LATENT), bernoulli(LATENT + CLASSES), q, classifier=classifier, classes=CLASSES
    )


LABELS = torch.arange(N) % CLASSES
MODELS = {
    vae: (N, ()),
    bottom_up: (N, ()),
    top_down: (N, ()),
    conditional: (one_hot(LABELS, CLASSES).float(), (one_hot(LABELS, CLASSES).float(),)),
    semi_supervised: (LABELS, (LABELS,)),
}
each_model = pytest.mark.parametrize(("make", "drawn_for", "given"), [(make, *rest) for make, rest in MODELS.items()])


def guide_at(model, x, given, latents):
    """The guide with its latents at these values."""
    return poutine.trace(poutine.condition(model.guide, data=latents)).get_trace(x, *given)


@each_model
def test_draws_from_the_prior_are_those_of_the_model(make, drawn_for, given):
    """p(x | z) at the draws is that of the program with its latents there."""
    model = make(normal)
    latents, p_x = model.draw_prior(drawn_for)
    x = p_x.sample()
    trace = poutine.trace(poutine.condition(model.model, data=latents)).get_trace(x, *given)
    trace.compute_log_prob()
    assert set(latents) == set(trace.nodes) & {"z", "z1", "z2"}
    assert all(value.shape[0] == N for value in latents.values())
    assert_close(p_x.log_prob(x), trace.nodes["x"]["log_prob"].detach())
    for number in (model.sample, model.sample_means):
        torch.manual_seed(4)
        found = number(drawn_for)
        torch.manual_seed(4)
        _, p_x = model.draw_prior(drawn_for)
        assert torch.equal(found, p_x.sample() if number == model.sample else p_x.mean)
        assert not found.requires_grad


def test_draws_have_the_distribution_of_the_prior():
    """Of two layers: p(z1) by its first two moments, 6 standard errors (of standard deviations: twice a normal's)."""
    model = top_down(normal)
    n = 20_000
    latents, _ = model.draw_prior(n)
    q = model.layers[0](torch.randn(n, LATENT))
    other = q.sample()
    error = (latents["z1"].var(0) / n + other.var(0) / n).sqrt()
    assert ((latents["z1"].mean(0) - other.mean(0)).abs() < 6 * error).all()
    assert_close(latents["z1"].std(0), other.std(0), rtol=2 * 6 * (2 / (2 * n)) ** 0.5, atol=0)
    assert_close(latents["z2"].std(0), torch.ones(LATENT), atol=6 / (2 * n) ** 0.5, rtol=0)


@each_model
def test_codes_are_means_and_reconstructions_are_decoded_codes(make, drawn_for, given):
    model = make(normal)
    x = model.sample(drawn_for)
    codes = model.codes(x, *given)
    trace = guide_at(model, x, given, codes)
    assert set(codes) == set(trace.nodes) & {"z", "z1", "z2"}
    for site, z in codes.items():
        assert_close(z, trace.nodes[site]["fn"].mean.detach())
    if hasattr(model, "encode"):
        encoded = model.encode(x, *given)
        assert_close(encoded if isinstance(encoded, dict) else {"z": encoded}, codes)
    decoded = poutine.trace(poutine.condition(model.model, data=codes)).get_trace(x, *given).nodes["x"]["fn"]
    assert_close(model.reconstruct(x, *given), decoded.mean.detach())


@each_model
def test_codes_are_draws_where_there_is_no_mean(make, drawn_for, given):
    """A flow has no mean: its codes are draws, those before it means; encode refuses."""
    model = make(flow)
    x = model.sample(drawn_for)
    with pyro.validation_enabled(False):
        several = [model.codes(x, *given) for _ in range(3)]
    flowing = "z" if "z" in several[0] else "z2"
    assert not torch.equal(several[0][flowing], several[1][flowing])
    if make is bottom_up:
        assert torch.equal(several[0]["z1"], several[1]["z1"])
    if hasattr(model, "encode"):
        with pytest.raises(NotImplementedError, match="has no mean in closed form; codes"):
            model.encode(x, *given)
    torch.manual_seed(5)
    codes = model.codes(x, *given)
    decoded = poutine.trace(poutine.condition(model.model, data=codes)).get_trace(x, *given).nodes["x"]["fn"]
    torch.manual_seed(5)
    assert_close(model.reconstruct(x, *given), decoded.mean.detach())


def test_codes_that_are_drawn_have_the_distribution_of_the_posterior():
    """KS distance of 5000 codes of one datapoint and 5000 draws: above 2 * (2 / 5000)**0.5 by chance in 1e-3 of runs."""
    torch.manual_seed(7)
    model = vae(flow)
    x = model.sample(1).expand(5000, *EVENT)
    a, b = model.codes(x)["z"], model.posterior(x).sample()
    for column in range(LATENT):
        both = torch.cat([a[:, column], b[:, column]]).sort().values
        ranks = [torch.searchsorted(each[:, column].sort().values, both, right=True) / 5000 for each in (a, b)]
        assert (ranks[0] - ranks[1]).abs().max() < 2 * (2 / 5000) ** 0.5


def test_the_most_probable_labels_are_taken_where_there_are_none():
    model = semi_supervised(normal)
    x = model.sample(LABELS)
    labels = model.classify(x).argmax(-1)
    assert torch.equal(model.codes(x)["z"], model.codes(x, labels)["z"])
    assert torch.equal(model.reconstruct(x), model.reconstruct(x, labels))


class Own(torch_nn.Module):
    """A user's pair of programs, which has a model and a guide and nothing else."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def model(self, x):
        return self.inner.model(x)

    def guide(self, x):
        return self.inner.guide(x)


@pytest.mark.parametrize(
    ("make", "loss", "other"),
    [
        (vae, TraceMeanField_ELBO, Trace_ELBO),
        (conditional, TraceMeanField_ELBO, Trace_ELBO),
        (top_down, Trace_ELBO, TraceMeanField_ELBO),
        (bottom_up, Trace_ELBO, None),
        (semi_supervised, Trace_ELBO, TraceMeanField_ELBO),
        (lambda posterior: Own(vae(posterior)), Trace_ELBO, TraceMeanField_ELBO),
    ],
    ids=["vae", "conditional", "top_down", "bottom_up", "semi_supervised", "a user's own"],
)
def test_fit_minimizes_the_default_loss(make, loss, other):
    """The same numbers as with this loss by name, and others than with the other one."""
    model = make(normal)
    x = torch.rand(N, *EVENT).round()
    data = (x, *MODELS.get(make, (N, ()))[1])

    def losses(**options):
        history = fit(
            copy.deepcopy(model),
            data if len(data) > 1 else x,
            epochs=2,
            seed=0,
            compile=False,
            progress=False,
            **options,
        ).history
        return [row["train_loss"] for row in history]

    found = losses()
    assert found == losses(loss=loss())
    if other is not None:
        assert found != losses(loss=other())
