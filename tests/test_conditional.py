"""Conditions, labels and sums over them, on linear-Gaussian models whose evidence is known."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import pyro
import pytest
import torch
from linear_gaussian import LinearLikelihood
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from torch.nn.functional import one_hot
from torch.testing import assert_close

from pyro_vae import (
    ConditionalPosterior,
    ConditionalVAE,
    SemiSupervisedVAE,
    evidence,
    fit,
    likelihoods,
    nn,
    posteriors,
    priors,
)
from pyro_vae.weights import log_weights

LATENT, PIXELS, CLASSES = 2, 4, 3


def appended():
    return posteriors.Normal(nn.mlp(PIXELS + CLASSES, [8], 2 * LATENT))


def with_features():
    return ConditionalPosterior(nn.mlp(PIXELS, [8], 5), posteriors.Normal(nn.mlp(5 + CLASSES, [8], 2 * LATENT)))


def parts(posterior=appended):
    return {
        "prior": priors.StandardNormal(LATENT),
        "likelihood": LinearLikelihood(torch.randn(PIXELS, LATENT + CLASSES), torch.zeros(PIXELS), 0.9),
        "posterior": posterior(),
    }


@pytest.fixture(params=[appended, with_features])
def conditional(request):
    return ConditionalVAE(**parts(request.param), conditions=CLASSES)


@pytest.fixture(params=[appended, with_features])
def semi(request):
    return SemiSupervisedVAE(**parts(request.param), classifier=nn.mlp(PIXELS, [8], CLASSES), classes=CLASSES)


@torch.no_grad()
def log_likelihoods(vae, x):
    """log p(x | y) for each y, ``[n, classes]``, in float64."""
    columns = torch.eye(LATENT + CLASSES)
    weight = (vae.likelihood(columns).mean - vae.likelihood(torch.zeros_like(columns)).mean).mT.double()
    bias = vae.likelihood(torch.zeros(LATENT + CLASSES)).mean.double()
    covariance = weight[:, :LATENT] @ weight[:, :LATENT].mT + 0.9**2 * torch.eye(PIXELS)
    means = bias + weight[:, LATENT:].mT
    return dist.MultivariateNormal(means, covariance).log_prob(x.double()[:, None])


def test_conditional_evidence_is_exact(conditional):
    labels = torch.arange(9) % CLASSES
    y = one_hot(labels, CLASSES).float()
    x = conditional.sample(y)
    model, guide = partial(conditional.model, y=y), partial(conditional.guide, y=y)
    result = evidence.importance(model, guide, x, num_samples=20_000, proposal=evidence.defensive(0.5))
    exact = log_likelihoods(conditional, x)[range(9), labels]
    assert ((result.log_prob - exact).abs() <= 6 * result.std_error + 1e-4).all()
    assert result.std_error.max() < 0.3


def test_conditional_programs_learn(conditional):
    y = one_hot(torch.arange(60) % CLASSES, CLASSES).float()
    x = torch.randn(60, PIXELS) + 3 * y @ torch.randn(CLASSES, PIXELS)
    before = Trace_ELBO(20).loss(conditional.model, conditional.guide, x, y)
    svi = SVI(conditional.model, conditional.guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    for _ in range(200):
        svi.step(x, y)
    after = Trace_ELBO(20).loss(conditional.model, conditional.guide, x, y)
    assert after < 0.8 * before
    # The condition is used: with another one the data are less probable.
    assert Trace_ELBO(20).loss(conditional.model, conditional.guide, x, y.roll(1, 0)) > 1.2 * after
    assert conditional.reconstruct(x, y).shape == x.shape
    assert conditional.encode(x, y).shape == (60, LATENT)


def test_semi_supervised_evidence_sums_over_labels(semi):
    x = semi.sample(torch.arange(9) % CLASSES)
    result = evidence.importance(semi.model, semi.guide, x, num_samples=20_000, proposal=evidence.defensive(0.5))
    exact = log_likelihoods(semi, x).logsumexp(1) - torch.tensor(CLASSES).log()
    assert ((result.log_prob - exact).abs() <= 6 * result.std_error + 1e-4).all()
    assert result.std_error.max() < 0.3


def test_enumerated_elbo_is_the_sum_over_labels(semi):
    """Equation 7: sum_y q(y | x) (ELBO(x, y) - log q(y | x)), with ELBO(x, y) from the labelled programs."""
    x = semi.sample(torch.arange(200) % CLASSES)
    with torch.no_grad():
        q_y = semi.classify(x)
        enumerated = [-TraceEnum_ELBO(max_plate_nesting=1).loss(semi.model, semi.guide, x) for _ in range(200)]
        by_label = []
        for label in range(CLASSES):
            y = torch.full((200,), label)
            terms = evidence.importance(partial(semi.model, y=y), partial(semi.guide, y=y), x, num_samples=200).elbo
            by_label.append(terms)
        expected = (q_y * (torch.stack(by_label, 1) - q_y.log())).sum().item()
    values = torch.tensor(enumerated)
    # Each side is a mean of 200 draws for each of 200 datapoints; 6 standard errors of both.
    assert abs(values.mean().item() - expected) < 6 * 2**0.5 * values.std().item() / 200**0.5


def test_semi_supervised_learns_from_few_labels():
    torch.manual_seed(1)
    labels = torch.arange(600) % CLASSES
    centers = torch.tensor([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 0]])
    x = centers[labels] + 0.5 * torch.randn(600, PIXELS)
    semi = SemiSupervisedVAE(**parts(), classifier=nn.mlp(PIXELS, [16], CLASSES), classes=CLASSES, label_weight=5.0)
    optim = pyro.optim.Adam({"lr": 0.01})
    unlabelled = SVI(semi.model, semi.guide, optim, TraceEnum_ELBO(max_plate_nesting=1))
    labelled = SVI(semi.model, semi.guide, optim, Trace_ELBO())
    classification = SVI(semi.label_model, semi.label_guide, optim, Trace_ELBO())
    few, many = slice(0, 6), slice(6, 500)
    for _ in range(150):
        unlabelled.step(x[many])
        labelled.step(x[few], labels[few])
        classification.step(x[few], labels[few])
    accuracy = (semi.classify(x[500:]).argmax(1) == labels[500:]).double().mean()
    assert accuracy > 0.9


def test_the_weight_of_labels(semi):
    x, y = torch.randn(5, PIXELS), torch.arange(5) % CLASSES
    once = Trace_ELBO().loss(semi.label_model, semi.label_guide, x, y)
    semi.label_weight = 3.0
    assert Trace_ELBO().loss(semi.label_model, semi.label_guide, x, y) == pytest.approx(3 * once)
    assert once == pytest.approx(-semi.classify(x).log()[range(5), y].sum().item(), rel=1e-5)


def test_in_float64(conditional, semi):
    y = one_hot(torch.arange(4) % CLASSES, CLASSES).double()
    x = conditional.double().sample(y)
    assert x.dtype == torch.float64
    assert Trace_ELBO().loss(conditional.model, conditional.guide, x, y) > 0
    labels = torch.arange(4) % CLASSES
    x = semi.double().sample(labels)
    assert x.dtype == torch.float64
    assert TraceEnum_ELBO(max_plate_nesting=1).loss(semi.model, semi.guide, x) > 0


def test_images_and_labels_append():
    vae = ConditionalVAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(nn.mlp(2 + 3, [8], (1, 4, 4))),
        posteriors.Normal(nn.mlp(16 + 3, [8], 4)),
        conditions=3,
    )
    x = vae.sample(torch.eye(3))
    assert x.shape == (3, 1, 4, 4)
    assert_close(vae.reconstruct(x, torch.eye(3)).shape, x.shape)


IMAGE = (1, 4, 4)


def of_images(kind, posterior):
    """A conditional or semi-supervised VAE of images, with three conditions or classes."""
    more = {"conditions": 3} if kind is ConditionalVAE else {"classifier": nn.mlp(IMAGE, [], 3), "classes": 3}
    likelihood = likelihoods.Bernoulli(nn.mlp(2 + 3, [8], IMAGE))
    return kind(priors.StandardNormal(2), likelihood, posterior, **more)


@pytest.mark.parametrize("kind", [ConditionalVAE, SemiSupervisedVAE])
def test_a_posterior_of_two_arguments_gets_data_and_conditions_as_they_are(kind):
    calls = []

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(2))

        def forward(self, x, y):
            calls.append((x, y))
            return dist.Normal(0.1 * y[..., :2] + x.mean((-1, -2)), self.scale).to_event(1)

    vae = of_images(kind, Own())
    labels = torch.tensor([0, 2, 1, 0, 1])
    y = one_hot(labels, 3).float()
    x = torch.rand(5, *IMAGE).round()
    calls.clear()
    vae.guide(x, y if kind is ConditionalVAE else labels)
    ((got_x, got_y),) = calls
    assert torch.equal(got_x, x)
    assert torch.equal(got_y, y)
    if kind is SemiSupervisedVAE:
        calls.clear()
        TraceEnum_ELBO(max_plate_nesting=1).loss(vae.model, vae.guide, x)
        ((got_x, got_y),) = calls
        assert torch.equal(got_x, x)
        assert torch.equal(got_y, torch.eye(3)[:, None])  # each label, for all data


@pytest.mark.parametrize("kind", [ConditionalVAE, SemiSupervisedVAE])
def test_flat_features_are_what_one_argument_gets(kind):
    """Flattening in the posterior or before it is the same, in each bit."""
    posterior = posteriors.Normal(nn.mlp(16 + 3, [8], 4))
    plain = of_images(kind, posterior)
    other = copy.deepcopy(plain)
    other.posterior = ConditionalPosterior(torch.nn.Flatten(-3), other.posterior)
    labels = torch.arange(6) % 3
    y = one_hot(labels, 3).float() if kind is ConditionalVAE else labels
    x = plain.sample(y)

    def outcomes(vae):
        torch.manual_seed(2)
        found = [log_weights(partial(vae.model, y=y), partial(vae.guide, y=y), x, 5)]
        found += [vae.codes(x, y)["z"], vae.reconstruct(x, y)]
        if kind is SemiSupervisedVAE:
            found.append(torch.tensor(TraceEnum_ELBO(max_plate_nesting=1).loss(vae.model, vae.guide, x)))
        return found

    assert all(torch.equal(a, b) for a, b in zip(outcomes(plain), outcomes(other), strict=True))


@pytest.mark.parametrize("kind", [ConditionalVAE, SemiSupervisedVAE])
def test_convolutional_encoders_learn(kind):
    """Bars, whose place is not their label; with other labels the data are less probable."""
    torch.manual_seed(0)
    x = torch.zeros(120, *IMAGE)
    labels, place = torch.arange(120) % 3, torch.randint(4, (120,))
    x[torch.arange(120), 0, place, :4] = 1.0
    x[torch.arange(120), 0, :, labels] = 1.0
    features = nn.convolutional_encoder(IMAGE, 8, [4, 8])
    before = [parameter.detach().clone() for parameter in features.parameters()]
    vae = of_images(kind, ConditionalPosterior(features, posteriors.Normal(nn.mlp(8 + 3, [], 4))))
    y = one_hot(labels, 3).float() if kind is ConditionalVAE else labels
    run = fit(vae, (x, y), epochs=40, batch_size=40, lr=0.03, seed=0, compile=False, progress=False)
    assert run.history[-1]["train_loss"] < 0.7 * run.history[0]["train_loss"]
    by_label = [
        log_weights(partial(vae.model, y=each), partial(vae.guide, y=each), x, 200) for each in (y, y.roll(1, 0))
    ]
    right, wrong = (each.logsumexp(0).mean() for each in by_label)
    assert right > wrong + 1
    assert all(not torch.equal(old, new) for old, new in zip(before, features.parameters(), strict=True))


@pytest.mark.parametrize(
    ("posterior", "match"),
    [
        (ConditionalPosterior(nn.mlp(9, [], 4), appended()), r"posterior\(x\), for x of shape \[1, 1, 4, 4\].* failed"),
        (ConditionalPosterior(torch.nn.Flatten(-3), nn.mlp(16 + 3, [], 4)), "returned a Tensor; expected a dist"),
    ],
)
def test_features_that_do_not_fit(posterior, match):
    with pytest.raises((ValueError, TypeError), match=match):
        of_images(ConditionalVAE, posterior)


@pytest.mark.parametrize(
    ("y", "error", "match"),
    [
        (torch.zeros(5, CLASSES + 1), ValueError, r"y has shape \[5, 4\]; expected \[5, 3\]"),
        (torch.zeros(4, CLASSES), ValueError, r"expected \[5, 3\]"),
        (torch.zeros(5, CLASSES, dtype=torch.int64), TypeError, "expected a tensor of torch.float32"),
        (torch.zeros(5, CLASSES, dtype=torch.float64), TypeError, "y is of type torch.float64"),
        (torch.full((5, CLASSES), torch.nan), ValueError, "NaN or infinite"),
        ("b", TypeError, "y is of type str"),
    ],
)
def test_bad_conditions(conditional, y, error, match):
    for program in (conditional.model, conditional.guide):
        with pytest.raises(error, match=match):
            program(torch.randn(5, PIXELS), y)


@pytest.mark.parametrize(
    ("y", "error", "match"),
    [
        (torch.tensor([0, 1, 2, 3, 0]), ValueError, "labels from 0 to 3; expected 0 to 2"),
        (torch.tensor([0, 1, -1, 2, 0]), ValueError, "labels from -1 to 2; expected 0 to 2"),
        (torch.tensor([0, 1]), ValueError, r"y has shape \[2\]; expected \[5\]"),
        (torch.zeros(5), TypeError, "expected a tensor of int64"),
    ],
)
def test_bad_labels(semi, y, error, match):
    for program in (semi.model, semi.guide, semi.label_model):
        with pytest.raises(error, match=match):
            program(torch.randn(5, PIXELS), y)


@pytest.mark.parametrize(
    ("kind", "change", "error", "match"),
    [
        (ConditionalVAE, {"conditions": 0}, ValueError, "conditions is 0"),
        (ConditionalVAE, {"conditions": 2}, ValueError, r"likelihood\(z\).* failed"),
        (SemiSupervisedVAE, {"classes": 1}, ValueError, "classes is 1"),
        (SemiSupervisedVAE, {"classifier": nn.mlp(PIXELS, [], 2)}, ValueError, r"gives \[1, 2\]; expected \[1, 3\]"),
        (SemiSupervisedVAE, {"classifier": 3}, TypeError, "classifier is of type int"),
        (SemiSupervisedVAE, {"classifier": nn.mlp(9, [], CLASSES)}, ValueError, r"classifier\(x\).* failed"),
        (SemiSupervisedVAE, {"label_weight": 0}, ValueError, "label_weight is 0"),
    ],
)
def test_parts_that_do_not_fit(kind, change, error, match):
    good = parts() | (
        {"conditions": CLASSES}
        if kind is ConditionalVAE
        else {"classifier": nn.mlp(PIXELS, [], CLASSES), "classes": CLASSES}
    )
    kind(**good)
    with pytest.raises(error, match=match):
        kind(**good | change)


@pytest.mark.parametrize("semi", [with_features], indirect=True)
def test_semi_supervised_programs_can_be_compiled(semi, by_inductor):
    x = semi.sample(torch.arange(9) % CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = evidence.importance(semi.model, semi.guide, x, num_samples=100, compile=True)
    assert len(by_inductor) == 1
    assert result.log_prob.isfinite().all()


def test_conditions_in_float64_of_classes():
    """Parts that are already of float64, with data that are integers."""
    vae = ConditionalVAE(
        priors.StandardNormal(2).double(),
        likelihoods.Categorical(nn.mlp(2 + 3, [4], (5, 4))).double(),
        posteriors.Normal(nn.mlp(5 + 3, [4], 4)).double(),
        conditions=3,
    )
    y = torch.eye(3, dtype=torch.float64)
    assert Trace_ELBO().loss(vae.model, vae.guide, vae.sample(y), y) > 0
