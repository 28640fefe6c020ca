"""What ``fit`` has written is loaded as it was, or not at all: rebuilt from the folder alone, or into a VAE."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from functools import partial
from types import MethodType

import parts
import pytest
import torch
from parts import EVENT, LATENT
from torch import nn as torch_nn
from torch.nn.utils import parametrizations, prune

import pyro_vae
from pyro_vae import (
    VAE,
    BottomUp,
    CheckpointError,
    ConditionalPosterior,
    ConditionalVAE,
    HierarchicalVAE,
    SemiSupervisedVAE,
    TopDown,
    fit,
    likelihoods,
    nn,
    posteriors,
    priors,
    weights,
)
from pyro_vae.saving.description import NotDescribable, build, describe

CLASSES = 3
ONE_STEP = {"epochs": 1, "compile": False, "progress": False}


# Every part of the library, with networks that are not the tests' own.


def prior(name):
    return lambda: VAE(parts.PRIORS[name](q := posteriors.Normal(encoder(2 * LATENT))), bernoulli(), q)


def likelihood(name):
    return lambda: VAE(priors.StandardNormal(LATENT), parts.LIKELIHOODS[name](), posteriors.Normal(encoder(2 * LATENT)))


def posterior(name):
    return lambda: VAE(priors.StandardNormal(LATENT), bernoulli(), parts.POSTERIORS[name]())


def encoder(outputs):
    return nn.mlp(EVENT, [8], outputs)


def bernoulli():
    return likelihoods.Bernoulli(parts.decoder())


def small():
    return VAE(priors.StandardNormal(LATENT), bernoulli(), posteriors.Normal(encoder(2 * LATENT)))


def vamp():
    q = posteriors.Normal(encoder(2 * LATENT))
    return VAE(priors.VampPrior(torch_nn.Sequential(torch_nn.Hardtanh(0, 1), q), torch.rand(4, *EVENT)), bernoulli(), q)


def on_the_sphere():
    return VAE(priors.HypersphericalUniform(LATENT), bernoulli(), posteriors.ProjectedNormal(encoder(LATENT)))


def classes():
    network = nn.OneHot(nn.mlp((*EVENT, 4), [8], 2 * LATENT), 4)
    return VAE(priors.StandardNormal(LATENT), likelihoods.Categorical(parts.decoder(4)), posteriors.Normal(network))


def incomplete():
    network = nn.FillMissing(encoder(2 * LATENT), 0.5)
    complete = likelihoods.Normal(parts.decoder(), 0.1)
    return VAE(priors.StandardNormal(LATENT), likelihoods.Incomplete(complete), posteriors.Normal(network))


def zero_inflated():
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.ZeroInflated(likelihoods.Poisson(parts.decoder()), parts.decoder()),
        posteriors.Normal(nn.Log1p(encoder(2 * LATENT))),
    )


def series():
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Incomplete(likelihoods.HeteroscedasticNormal(nn.series_decoder(LATENT, (11, 2, 2), (4, 3)))),
        posteriors.Normal(nn.MarkMissing(nn.series_encoder((11, 4), 2 * LATENT, (3, 4)))),
    )


def recurrent():
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Normal(nn.recurrent_decoder(LATENT, (5, 2), 4), 1.0),
        posteriors.Normal(nn.recurrent_encoder((5, 2), 2 * LATENT, 4)),
    )


def counts_with_sizes():
    return ConditionalVAE(
        priors.StandardNormal(LATENT),
        likelihoods.Poisson(nn.SizeFactor(nn.mlp(LATENT + CLASSES - 1, [8], EVENT))),
        posteriors.Normal(nn.mlp(3 + CLASSES, [8], 2 * LATENT)),
        CLASSES,
    )


def linear_gaussian():
    p = likelihoods.Normal(nn.mlp(LATENT, [], EVENT), likelihoods.PositiveParameter(torch.ones(EVENT)))
    return VAE(priors.StandardNormal(LATENT), p, posteriors.LinearGaussian(p, LATENT))


def convolutional():
    image = (1, 8, 8)
    block = partial(nn.ResidualBlock, activation=torch_nn.ReLU)
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.DiscretizedLogistic(nn.convolutional_decoder(LATENT, (*image, 2), (4, 3), block=block), levels=16),
        posteriors.Normal(nn.convolutional_encoder(image, 2 * LATENT, (3, 4), block=block)),
    )


def torchs_own():
    network = torch_nn.Sequential(
        OrderedDict(
            noise=torch_nn.Dropout(0.2),
            first=torch_nn.Linear(3, 8, bias=False),
            norm=torch_nn.LayerNorm(8),
            gelu=torch_nn.GELU("tanh"),
            last=torch_nn.Sequential(torch_nn.BatchNorm1d(8), torch_nn.PReLU(), torch_nn.Linear(8, 2 * LATENT)),
        )
    )
    activation = torch_nn.Softplus(2.0)
    decoder = torch_nn.Sequential(
        torch_nn.LazyLinear(8), activation, torch_nn.Linear(8, 8), activation, torch_nn.Bilinear(8, 8, 3)
    )
    decoder[4] = torch_nn.Linear(8, 3)
    return VAE(
        priors.StandardNormal(LATENT), likelihoods.Bernoulli(decoder), posteriors.Normal(nn.Broadcast(network, 1))
    )


def gated():
    return VAE(
        priors.Laplace(LATENT),
        likelihoods.ContinuousBernoulli(nn.gated_mlp(LATENT, [8], EVENT)),
        posteriors.Normal(nn.gated_mlp(EVENT, [8], 2 * LATENT)),
    )


def layers(*sizes):
    return [posteriors.Normal(nn.mlp(inputs, [6], 2 * outputs)) for inputs, outputs in sizes]


def bottom_up():
    return HierarchicalVAE(
        priors.StandardNormal(LATENT), layers((LATENT, 4)), likelihoods.Bernoulli(nn.mlp(4, [], EVENT)),
        BottomUp(layers((3, 4), (4, LATENT))),
    )  # fmt: skip


def top_down():
    return HierarchicalVAE(
        priors.StandardNormal(LATENT), layers((LATENT, 4)), likelihoods.Bernoulli(nn.mlp(4, [], EVENT)),
        TopDown([nn.mlp(3, [], 5), nn.mlp(5, [], 5)], layers((5, 4), (5, LATENT))),
    )  # fmt: skip


def with_labels():
    return {
        "prior": priors.StandardNormal(LATENT),
        "likelihood": likelihoods.Bernoulli(nn.mlp(LATENT + CLASSES, [8], EVENT)),
        "posterior": posteriors.Normal(nn.mlp(3 + CLASSES, [8], 2 * LATENT)),
    }


def conditional():
    return ConditionalVAE(**with_labels(), conditions=CLASSES)


def conditional_on_images():
    image = (1, 4, 4)
    posterior = ConditionalPosterior(
        nn.convolutional_encoder(image, 6, [2, 3]), posteriors.Normal(nn.mlp(6 + CLASSES, [], 2 * LATENT))
    )
    likelihood = likelihoods.Bernoulli(nn.mlp(LATENT + CLASSES, [8], image))
    return ConditionalVAE(priors.StandardNormal(LATENT), likelihood, posterior, conditions=CLASSES)


def semi_supervised():
    return SemiSupervisedVAE(**with_labels(), classifier=nn.mlp(EVENT, [], CLASSES), classes=CLASSES, label_weight=2.5)


OWN = {"torch's own", "zuko flow", "linear normal", "one covariance"}  # parts of the tests, or of others
APART = {"ProjectedNormal", "LinearGaussian", "ProductOfExperts"}  # with models of their own below
MODELS = {
    **{name: prior(name) for name in parts.PRIORS if name not in OWN | {"HypersphericalUniform"}},
    **{name: likelihood(name) for name in parts.LIKELIHOODS if name not in OWN | {"Categorical", "ZeroInflated"}},
    **{name: posterior(name) for name in parts.POSTERIORS if name not in OWN | APART},
    "ProductOfExperts": lambda: VAE(
        priors.StandardNormal(LATENT), bernoulli(), posteriors.ProductOfExperts(torch_nn.Identity(), *EVENT, LATENT)
    ),
    "VampPrior, clipped": vamp,
    "on the sphere": on_the_sphere,
    "classes": classes,
    "incomplete": incomplete,
    "zero-inflated": zero_inflated,
    "series": series,
    "recurrent": recurrent,
    "counts with sizes": counts_with_sizes,
    "LinearGaussian": linear_gaussian,
    "convolutional": convolutional,
    "torch's modules": torchs_own,
    "gated": gated,
    "bottom up": bottom_up,
    "top down": top_down,
    "conditional": conditional,
    "conditional on images": conditional_on_images,
    "semi-supervised": semi_supervised,
}


@pytest.fixture(autouse=True)
def _networks_of_the_library(monkeypatch):
    monkeypatch.setattr(parts, "encoder", encoder)


def labels(vae, n):
    """What the programs take besides x."""
    if isinstance(vae, ConditionalVAE):
        return {"y": torch.eye(CLASSES, dtype=vae._example_y.dtype)[torch.arange(n) % CLASSES]}
    return {"y": torch.arange(n) % CLASSES} if isinstance(vae, SemiSupervisedVAE) else {}


def draw(vae, n):
    y = labels(vae, n)
    return (vae.sample(**y) if y else vae.sample(n)), y


def outcomes(vae):
    """Draws, and log-weights at them, from the same seed."""
    torch.manual_seed(7)
    with torch.no_grad():
        x, y = draw(vae, 6)
        return x, weights.log_weights(partial(vae.model, **y), partial(vae.guide, **y), x)


def assert_same(vae, other):
    assert type(vae) is type(other)
    ours, theirs = vae.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    flags = [[(name, each.requires_grad) for name, each in module.named_parameters()] for module in (vae, other)]
    assert flags[0] == flags[1]
    for mode in (False, True):
        states = [copy.deepcopy(module.state_dict()) for module in (vae, other)]  # batch statistics change
        a, b = (outcomes(module.train(mode)) for module in (vae, other))
        assert all(torch.equal(mine, yours) for mine, yours in zip(a, b, strict=True))
        for module, state in zip((vae, other), states, strict=True):
            module.load_state_dict(state)


@pytest.fixture
def float64():
    """Modules are made in double precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("model", "precision"),
    [(model, each) for i, model in enumerate(MODELS) for each in ("single", ("made double", "turned double")[i % 2])],
)
def test_a_vae_is_rebuilt_from_its_folder(model, precision, request, tmp_path):
    if precision == "made double":
        request.getfixturevalue("float64")
    vae = MODELS[model]()
    if precision == "turned double":
        vae.double()
    x, y = draw(vae, 5)
    fit(vae, (x, *y.values()) if y else x, out=tmp_path, **ONE_STEP)
    torch.set_default_dtype(torch.float32)  # of another program
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = pyro_vae.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32
    assert not any(module.training for module in loaded.modules())
    assert_same(vae, loaded)


def test_what_was_shared_is_shared(tmp_path):
    vae = vamp()
    fit(vae, draw(vae, 5)[0], out=tmp_path, **ONE_STEP)
    loaded = pyro_vae.load(tmp_path)
    assert loaded.prior.posterior[1] is loaded.posterior
    assert len(list(loaded.parameters())) == len(list(vae.parameters()))


def test_a_loaded_vae_can_be_trained_on(tmp_path):
    vae = small()
    x = draw(vae, 20)[0]
    fit(vae, x, out=tmp_path, **ONE_STEP)
    loaded = pyro_vae.load(tmp_path)
    for module in (vae, loaded):
        fit(module, x, seed=3, **ONE_STEP)
    assert_same(vae, loaded)


def test_the_best_weights_are_taken_and_the_last_by_name(tmp_path):
    """Trained to give zeros, it is the worse at ones the longer it is trained."""
    vae = small()
    zeros, ones = torch.zeros(20, *EVENT), torch.ones(20, *EVENT)
    run = fit(vae, zeros, ones, epochs=4, lr=0.1, out=tmp_path, seed=0, compile=False, progress=False)
    assert run.best_epoch == 1
    best, last = (pyro_vae.load(tmp_path / f"{name}.safetensors") for name in ("best", "last"))
    assert_same(last, vae)
    assert_same(pyro_vae.load(str(tmp_path)), best)
    name = "likelihood.network.2.bias"
    assert not torch.equal(best.state_dict()[name], last.state_dict()[name])


# What cannot be rebuilt is loaded into a VAE


def own_prior():
    return VAE(parts.TorchPrior(), bernoulli(), posteriors.Normal(encoder(2 * LATENT)))


def own_flow():
    return VAE(parts.PRIORS["zuko flow"](None), bernoulli(), posteriors.Normal(encoder(2 * LATENT)))


def own_layer():
    network = torch_nn.Sequential(parts.Inputs(), encoder(2 * LATENT))
    return VAE(priors.StandardNormal(LATENT), bernoulli(), posteriors.Normal(network))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (own_prior, r"\(prior is a parts.TorchPrior\)"),
        (own_flow, r"\(prior is a zuko.flows.autoregressive.MAF\)"),
        (own_layer, r"\(posterior.network.0 is a parts.Inputs\)"),
    ],
)
def test_parts_of_ones_own(model, reason, tmp_path):
    vae = model()
    fit(vae, draw(vae, 5)[0], out=tmp_path, **ONE_STEP)
    with pytest.raises(
        CheckpointError, match=rf"cannot be rebuilt {reason}; construct the VAE and pass it: load\(path, vae"
    ):
        pyro_vae.load(tmp_path)
    other = model()
    assert pyro_vae.load(tmp_path, other) is other
    assert not other.training
    assert_same(vae, other)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: VAE(priors.StandardNormal(LATENT), bernoulli(), posteriors.Normal(nn.mlp(EVENT, [9], 2 * LATENT))),
         r"posterior.network.0.bias is \[8\] of float32 there and \[9\] of float32 here"),
        (lambda: small().double(), r"likelihood.network.0.bias is \[8\] of float32 there and \[8\] of float64 here"),
        (lambda: VAE(priors.Mixture(LATENT, 3), *list(small().children())[1:]),
         r"prior.loc is missing there and \[3, 2\] of float32 here"),
        (lambda: list(small().children())[1], r"likelihood.network.0.bias is \[8\] of float32 there and missing here"),
    ],
)  # fmt: skip
def test_another_architecture_is_refused_by_name_and_left_alone(other, message, tmp_path):
    x = draw(small(), 5)[0]
    fit(small(), x, out=tmp_path, **ONE_STEP)
    vae = other()
    before = copy.deepcopy(vae.state_dict())
    with pytest.raises(CheckpointError, match=f"is of another architecture: .*{message}"):
        pyro_vae.load(tmp_path, vae)
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    if isinstance(vae, VAE):
        with pytest.raises(CheckpointError, match=message):
            fit(vae, x, out=tmp_path, resume=True, **ONE_STEP)


def test_something_else_than_a_vae(tmp_path):
    with pytest.raises(TypeError, match="vae is of type dict; expected a module"):
        pyro_vae.load(tmp_path, {})


# Modules that were altered: as they are, or refused


def altered(change):
    vae = VAE(
        priors.MaskedAutoregressiveFlow(LATENT, 1, [4]),
        likelihoods.DiscretizedLogistic(nn.convolutional_decoder(LATENT, (1, 4, 4, 2), (3,), block=nn.ResidualBlock)),
        posteriors.Normal(
            torch_nn.Sequential(
                torch_nn.Flatten(-3), torch_nn.Dropout(0.5), torch_nn.Linear(16, 16), torch_nn.Hardtanh(),
                torch_nn.Linear(16, 2 * LATENT),
            )
        ),
    )  # fmt: skip
    change(vae)
    return vae


def dropout(vae):
    vae.posterior.network[1].p = 0.1


def bounds(vae):
    vae.posterior.network[3].max_val = 0.2


def no_bias(vae):
    vae.posterior.network[4].bias = None


def another_layer(vae):
    vae.posterior.network[3] = torch_nn.Tanh()


def another_part(vae):
    vae.prior = priors.Laplace(LATENT)


def another_order(vae):
    vae.prior.flow.transform.transforms[0].order.copy_(vae.prior.flow.transform.transforms[0].order.flip(0))


def frozen(vae):
    vae.likelihood.requires_grad_(False)


def twice(vae):
    vae.posterior.network.insert(3, vae.posterior.network[2])


RIGHT = [dropout, bounds, no_bias, another_layer, another_part, another_order, frozen, twice]


def own_forward(vae):
    vae.posterior.forward = lambda x: posteriors.Normal.forward(vae.posterior, 2 * x)


def own_forward_within(vae):
    block = vae.likelihood.network[1].network[0]
    block.branch[3].forward = MethodType(torch.mul, 2)


def own_method(vae):
    vae.sample = lambda n: torch.zeros(n, 1, 4, 4)


def hook(vae):
    vae.posterior.network[2].register_forward_hook(lambda *arguments: 2 * arguments[2])


def hook_before(vae):
    vae.register_forward_pre_hook(lambda *_: None)


def hook_within(vae):
    vae.prior.flow.transform.transforms[0].hyper[0].register_forward_hook(lambda *arguments: 2 * arguments[2])


def hook_of_gradients(vae):
    vae.posterior.network[2].register_full_backward_hook(lambda *_: None)


def another_layer_within(vae):
    vae.likelihood.network[1].network[0].branch[0] = torch_nn.ReLU()


def another_function_within(vae):
    vae.prior.flow.transform.transforms[0].univariate = torch.distributions.AffineTransform


def another_size_within(vae):
    vae.likelihood.network[1].network[0].branch[1] = torch_nn.Conv2d(3, 3, 5, padding=2)


def another_class(vae):
    vae.posterior.__class__ = type("Normal", (posteriors.Normal,), {"forward": lambda *_: None})


def an_attribute(vae):
    vae.posterior.temperature = 2.0


def tied(vae):
    vae.posterior.network[2].weight = torch_nn.Parameter(torch.ones(16, 16))
    vae.posterior.network.insert(3, torch_nn.Linear(16, 16))
    vae.posterior.network[3].weight = vae.posterior.network[2].weight


def two_precisions(vae):
    vae.likelihood.double()


def weight_norm(vae):
    parametrizations.weight_norm(vae.posterior.network[2])


def pruned(vae):
    prune.random_unstructured(vae.posterior.network[2], "weight", 0.5)


def a_parameter(vae):
    vae.posterior.register_parameter("temperature", torch_nn.Parameter(torch.ones(())))


def a_module(vae):
    vae.posterior.another = torch_nn.Linear(2, 2)


REFUSED = [
    own_forward, own_forward_within, own_method, hook, hook_before, hook_within, hook_of_gradients,
    another_layer_within, another_function_within, another_size_within, another_class, an_attribute,
    tied, two_precisions, weight_norm, pruned, a_parameter, a_module,
]  # fmt: skip


@pytest.mark.parametrize("change", RIGHT)
def test_what_was_altered_is_rebuilt_as_it_is(change):
    vae = altered(change)
    again = build(describe(vae), vae.state_dict())
    again.load_state_dict(vae.state_dict())
    assert_same(vae, again)


@pytest.mark.parametrize("change", REFUSED)
def test_what_cannot_be_said_is_refused(change):
    with pytest.raises(NotDescribable, match=r".{10}"):
        describe(altered(change))


def test_a_constant_that_was_altered_is_refused():
    vae = small()
    vae.prior.scale.fill_(2.0)
    with pytest.raises(NotDescribable, match="prior, a StandardNormal, has another scale than its arguments make"):
        describe(vae)


def test_a_description_is_the_same_after_training():
    vae = small()
    before = describe(vae)
    fit(vae, draw(vae, 20)[0], epochs=1, compile="graph", progress=False)
    assert describe(vae) == before
    assert describe(build(before, vae.state_dict())) == before
