"""VAE: its two programs under all of Pyro, its parameters its own, its errors early."""

from __future__ import annotations

import copy
import io

import pyro
import pytest
import torch
import zuko
from conftest import EVENT, LATENT, small_vae
from linear_gaussian import exact_log_evidence, exact_posterior, random_instance
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import (
    MCMC,
    NUTS,
    SVI,
    JitTrace_ELBO,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.nn import PyroModule
from torch import nn as torch_nn
from torch.testing import assert_close

from pyro_vae import VAE, likelihoods, nn, posteriors, priors, weights


def test_programs_have_the_sites_and_the_plate_of_the_contract(vae, x):
    guide_trace = poutine.trace(vae.guide).get_trace(x)
    model_trace = poutine.trace(poutine.replay(vae.model, guide_trace)).get_trace(x)
    assert isinstance(vae, PyroModule)
    assert model_trace.stochastic_nodes == guide_trace.stochastic_nodes == ["data", "z"]
    assert model_trace.observation_nodes == ["x"]
    for site in (model_trace.nodes["z"], model_trace.nodes["x"], guide_trace.nodes["z"]):
        assert [(frame.name, frame.dim, frame.size) for frame in site["cond_indep_stack"]] == [("data", -1, 7)]
    assert set(model_trace.param_nodes) == {n for n, _ in vae.named_parameters() if n.startswith("likelihood")}
    assert set(guide_trace.param_nodes) == {n for n, _ in vae.named_parameters() if n.startswith("posterior")}


def test_sample_encode_reconstruct(vae, x):
    draws = vae.sample(400)
    assert draws.shape == (400, *EVENT)
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert_close(vae.encode(x), vae.posterior(x).mean)
    assert vae.encode(x).shape == (7, LATENT)
    assert_close(vae.reconstruct(x), vae.likelihood(vae.encode(x)).mean)
    assert not vae.reconstruct(x).requires_grad


@pytest.mark.parametrize(
    "loss",
    [
        Trace_ELBO(),
        TraceMeanField_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
        TraceGraph_ELBO(),
        TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False),
        RenyiELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
        pytest.param(
            JitTrace_ELBO(),
            marks=pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::torch.jit.TracerWarning"),
        ),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_svi_trains_every_parameter_of_this_vae_and_of_no_other(vae, x, loss):
    other = small_vae()
    for trained, bystander in ((vae, other), (other, vae)):
        before = copy.deepcopy([trained.state_dict(), bystander.state_dict()])
        svi = SVI(trained.model, trained.guide, pyro.optim.Adam({"lr": 0.01}), copy.deepcopy(loss))
        svi.step(x)
        for name, value in trained.state_dict().items():
            assert not torch.equal(value, before[0][name]), name
        for name, value in bystander.state_dict().items():
            assert torch.equal(value, before[1][name]), name


def test_training_closes_the_gap_to_the_evidence():
    """With the likelihood frozen, SVI finds the exact posterior, since it is of the guide's family."""
    exact, x = random_instance(seed=3, latent=1, event=4, n=200)
    exact.likelihood.requires_grad_(False)
    posterior = posteriors.Normal(nn.mlp(4, [], 2)).double()
    vae = VAE(priors.StandardNormal(1).double(), exact.likelihood, posterior)
    target = exact_log_evidence(exact.likelihood, x).mean().item()
    svi = SVI(
        vae.model,
        vae.guide,
        pyro.optim.Adam({"lr": 0.03}),
        TraceMeanField_ELBO(num_particles=4, vectorize_particles=True, max_plate_nesting=1),
    )
    gap_before = target - weights.log_weights(vae.model, vae.guide, x, 100).mean().item()
    for _ in range(600):
        svi.step(x)
    gap = target - weights.log_weights(vae.model, vae.guide, x, 100).mean().item()
    assert gap_before > 0.3
    assert -1e-3 < gap < 0.02
    assert_close(vae.encode(x), exact_posterior(exact.likelihood, x).loc, atol=0.1, rtol=0)


def test_parameters_are_its_own(vae, x):
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    svi.step(x)
    # A copy is independent.
    twin = copy.deepcopy(vae)
    trained = copy.deepcopy(vae.state_dict())
    SVI(twin.model, twin.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x)
    assert_close(vae.state_dict(), trained)
    # What is loaded stays, even where loading replaces the parameters themselves.
    state = small_vae().state_dict()
    vae.load_state_dict(state, assign=True)
    vae.model(x), vae.guide(x)
    assert_close(vae.state_dict(), state)
    # Another architecture under the same names is no trouble.
    wide = small_vae(latent=5)
    SVI(wide.model, wide.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x)


def test_frozen_parameters_stay(vae, x):
    vae.likelihood.requires_grad_(False)
    before = copy.deepcopy(vae.state_dict())
    SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x)
    for name, value in vae.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("likelihood")
    assert not any(parameter.requires_grad for parameter in vae.likelihood.parameters())
    assert poutine.trace(vae.model).get_trace(x).param_nodes == []


def test_a_shared_part_is_declared_once(x):
    """As in a VampPrior, which holds the posterior."""

    class Aggregate(torch_nn.Module):
        def __init__(self, posterior):
            super().__init__()
            self.posterior = posterior

        def forward(self):
            q = self.posterior(torch.zeros(EVENT))
            return torch.distributions.Independent(torch.distributions.Normal(q.mean, 1.0), 1)

    for _ in range(2):
        posterior = posteriors.Normal(nn.mlp(EVENT, [8], 4))
        vae = VAE(Aggregate(posterior), likelihoods.Bernoulli(nn.mlp(2, [8], EVENT)), posterior)
        before = copy.deepcopy(vae.state_dict())
        SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO()).step(x)
        assert all(not torch.equal(value, before[name]) for name, value in vae.state_dict().items())


def test_whole_modules_can_be_saved(vae, x):
    vae.model(x), vae.guide(x)
    file = io.BytesIO()
    torch.save(vae, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert_close(again.state_dict(), vae.state_dict())
    assert_close(again.encode(x), vae.encode(x))


def test_posterior_predictive(vae, x):
    draws = Predictive(poutine.uncondition(vae.model), guide=vae.guide, num_samples=5)(x)
    assert draws["z"].shape == (5, 7, LATENT)
    assert draws["x"].shape == (5, 7, *EVENT)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nuts_finds_the_exact_posterior():
    vae, x = random_instance(seed=5, latent=2, event=3, n=1)
    vae.requires_grad_(False)
    mcmc = MCMC(NUTS(vae.model), num_samples=400, warmup_steps=100, disable_progbar=True)
    mcmc.run(x)
    z = mcmc.get_samples()["z"][:, 0]
    exact = exact_posterior(vae.likelihood, x)
    # With at least 100 effective draws a standard error is 0.1 standard deviations; at five of them:
    assert ((z.mean(0) - exact.loc[0]).abs() < 0.5 * exact.stddev[0]).all()
    assert ((z.std(0) / exact.stddev[0]).log().abs() < 0.4).all()


class Rows(torch_nn.Module):
    """A network of dropout and batch statistics, for any leading dimensions."""

    def __init__(self):
        super().__init__()
        self.network = torch_nn.Sequential(torch_nn.Linear(2, 16), torch_nn.Dropout(), torch_nn.BatchNorm1d(16))

    def forward(self, z):
        return self.network(z.reshape(-1, 2)).reshape(*z.shape[:-1], *EVENT)


def test_construction_and_checks_leave_random_state_training_modes_and_statistics_alone(x):
    decoder, posterior = Rows(), posteriors.Normal(nn.mlp(EVENT, [8], 4))
    decoder.network[1].eval()
    statistics = copy.deepcopy(decoder.state_dict())
    state = torch.get_rng_state()
    vae = VAE(priors.StandardNormal(LATENT), likelihoods.Bernoulli(decoder), posterior)
    vae.check(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in decoder.network] == [True, False, True]
    assert_close(decoder.state_dict(), statistics)
    SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(x)


def test_lazy_parameters_exist_after_construction():
    encoder = torch_nn.Sequential(torch_nn.Flatten(), torch_nn.LazyLinear(4))
    VAE(priors.StandardNormal(LATENT), likelihoods.Bernoulli(nn.mlp(LATENT, [8], EVENT)), posteriors.Normal(encoder))
    assert encoder[1].weight.shape == (4, 16)


class Returns(torch_nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, *_):
        return self.value


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prior": priors.StandardNormal(3)}, ValueError, r"likelihood\(z\), for z of shape \[1, 3\] drawn from the prior, failed"),
        ({"posterior": posteriors.Normal(nn.mlp(EVENT, [8], 6))}, ValueError, r"latent sizes do not match: prior\(\) has event shape \[2\], posterior\(x\) has \[3\]"),
        ({"posterior": posteriors.Normal(nn.mlp(17, [8], 4))}, ValueError, r"posterior\(x\), for x of shape \[1, 1, 4, 4\] drawn from the likelihood, failed"),
        ({"likelihood": nn.mlp(2, [8], EVENT)}, TypeError, "likelihood.* returned a Tensor; expected a distribution"),
        ({"prior": Returns(3)}, TypeError, r"prior\(\) returned a int"),
        ({"prior": Returns(torch.distributions.Normal(torch.zeros(2), 1.0))}, ValueError, r"prior\(\) has batch shape \[2\]"),
        ({"posterior": Returns(torch.distributions.Normal(torch.zeros(1, 2), 1.0))}, ValueError, r"posterior\(x\) has batch shape \[1, 2\]"),
        ({"likelihood": lambda z: z}, TypeError, "likelihood is of type function; a part is an nn.Module"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(vae, change, error, message):
    parts = {"prior": vae.prior, "likelihood": vae.likelihood, "posterior": vae.posterior}
    with pytest.raises(error, match=message):
        VAE(**{**parts, **change})


@pytest.mark.parametrize("use", ["model", "guide", "encode", "reconstruct", "check"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x.index_fill(0, torch.tensor([2]), torch.nan), ValueError, r"16 values outside .*: the first is x\[2, 0, 0, 0\] = nan"),
        (lambda x: x - 0.5, ValueError, r"outside the support of the likelihood, \[0, 1\]"),
        (lambda x: x[0], ValueError, r"x has shape \[1, 4, 4\]; expected \[n, 1, 4, 4\]"),
        (lambda x: x.flatten(1), ValueError, r"x has shape \[7, 16\]; expected \[n, 1, 4, 4\]"),
        (lambda x: x[:0], ValueError, "expected .* with at least one datapoint"),
        (lambda x: x.byte(), TypeError, "x has dtype torch.uint8; expected torch.float32"),
        (lambda x: x.double(), TypeError, "x has dtype torch.float64; expected torch.float32"),
        (lambda x: x.numpy(), TypeError, "x is of type ndarray; expected a tensor"),
        (lambda x: x.to("meta"), ValueError, "x is on device meta; expected cpu"),
    ],
)  # fmt: skip
def test_bad_data_is_named(vae, x, use, change, error, message):
    with pytest.raises(error, match=message):
        getattr(vae, use)(change(x))


def test_grey_images_are_accepted_with_a_warning(vae, x):
    grey = x * 0.3
    logits = vae.likelihood.network(torch.zeros(7, LATENT))
    expected = -torch.nn.functional.binary_cross_entropy_with_logits(logits, grey, reduction="none").sum((1, 2, 3))
    assert_close(vae.likelihood(torch.zeros(7, LATENT)).log_prob(grey), expected)
    with pytest.warns(UserWarning, match="x has grey values, .* not a log-probability"):
        vae.check(grey)


def test_latents_and_data_of_any_kind():
    """A latent that must be positive, and data that are integers."""

    class Prior(torch_nn.Module):
        def forward(self):
            return dist.LogNormal(torch.zeros(2), 1.0).to_event(1)

    class Likelihood(torch_nn.Module):
        def forward(self, z):
            return dist.Categorical(dist.Dirichlet(z).mean.unsqueeze(-2).expand(*z.shape[:-1], 3, 2)).to_event(1)

    class Posterior(torch_nn.Module):
        def forward(self, x):
            return dist.LogNormal(x[..., :2].float(), 1.0).to_event(1)

    vae = VAE(Prior(), Likelihood(), Posterior())
    x = vae.sample(4)
    assert x.dtype == torch.int64
    assert weights.log_weights(vae.model, vae.guide, x, 3).shape == (3, 4)
    with pytest.raises(TypeError, match=r"x has dtype torch.float32; expected torch.int64"):
        vae.check(x.float())
    with pytest.raises(ValueError, match=r"the first is x\[0, 0\] = 2"):
        vae.check(x + 2 * (x == x[0, 0]) - (x[0, 0]))


def test_codes_of_a_posterior_without_a_mean(x):
    flow = zuko.flows.MAF(2, context=16, transforms=1, hidden_features=[8])

    class Posterior(torch_nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = flow

        def forward(self, x):
            return self.flow(x.flatten(-3))

    vae = VAE(priors.StandardNormal(2), likelihoods.Bernoulli(nn.mlp(2, [8], EVENT)), Posterior())
    with pytest.raises(NotImplementedError, match="NormalizingFlow has no mean"):
        vae.encode(x)


@pytest.mark.parametrize("n", [0, -3, 1.5, None])
def test_number_of_samples(vae, n):
    with pytest.raises(ValueError, match="n is"):
        vae.sample(n)
