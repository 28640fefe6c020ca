"""Programs with a global latent, which all datapoints share: evidence given draws of it, on models with known answers."""

from __future__ import annotations

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample

from pyro_vae import evidence
from pyro_vae.evidence.estimators import climbing
from pyro_vae.evidence.estimators.given import averaged

N, SIZE, SCALE = 12, 3, 0.6
CENTER, WIDTH = torch.tensor([1.0, -0.7, 0.4]), 0.1


def model(x):
    """A linear decoder with a prior on its weights."""
    weight = pyro.sample("weight", dist.Normal(torch.zeros(SIZE), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z[..., None] * weight, SCALE).to_event(1), obs=x)


def guide(x):
    pyro.sample("weight", dist.Normal(CENTER, WIDTH).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ CENTER / (CENTER.square().sum() + SCALE**2), 0.6))


def exact(weight, x):
    """log p(x | weight), ``[draws, n]``."""
    covariance = (weight[:, :, None] * weight[:, None, :] + SCALE**2 * torch.eye(SIZE)).double()
    return dist.MultivariateNormal(torch.zeros(SIZE).double(), covariance[:, None]).log_prob(x.double())


@pytest.fixture
def x():
    return torch.randn(N, 1) * CENTER + SCALE * torch.randn(N, SIZE)


def draws(count):
    return CENTER + WIDTH * torch.randn(count, SIZE)


def test_evidence_given_each_draw_and_the_mean_over_them(x):
    weight = draws(6)
    result = evidence.estimate(model, guide, x, given={"weight": weight}, tolerance=0.02)
    known = exact(weight, x)
    for each, log_prob in zip(result.given, known, strict=True):
        assert each.settled.all()
        assert ((each.log_prob - log_prob).abs() <= 3 * each.error).all()
        assert each.methods  # it is as any other estimate
    mean = known.logsumexp(0) - torch.tensor(6.0).log()
    of_estimates = result.error - result.draws_error
    assert ((result.log_prob - mean).abs() <= 3 * of_estimates).all()
    assert (result.draws_error > 0).all()
    assert "over 6 draws of the global latents" in result.summary()
    assert "<table>" in result._repr_html_()
    assert evidence.compare(result, result).mean_error > 2 * result.draws_error.mean()
    with pytest.raises(ValueError, match=r"need one draw of the global latents: call result.given\[0\].to_arviz\(\)"):
        result.to_arviz()
    assert result.given[3].to_arviz(16).posterior["z"].shape == (4, 4, N)


def of(log_prob):
    """Evidence that is known exactly."""
    nothing, many = torch.zeros_like(log_prob), torch.full_like(log_prob, 1e6)
    return evidence.Evidence(log_prob, nothing, nothing, nothing, many, nothing, log_prob, log_prob, many.long())


def test_the_error_has_the_finite_number_of_draws_in_it():
    """For 200 sets of 20 draws: of the mean over datapoints too, which all share the draws, so that it is no 1/sqrt(n).

    Here x = w + noise with w from N(0, 0.3^2), of which the mean density is that of a normal. A 95% interval covers at
    least 90% with probability 0.998.
    """
    noise = 1.0
    x = torch.linspace(-1.0, 2.0, 300, dtype=torch.float64)
    truth = dist.Normal(0.0, (0.09 + noise**2) ** 0.5).log_prob(x)
    covered, covered_mean, independent = [], [], []
    for _ in range(200):
        weight = 0.3 * torch.randn(20, dtype=torch.float64)
        result = averaged([of(dist.Normal(w, noise).log_prob(x)) for w in weight])
        assert result.settled.all()
        covered.append(((result.log_prob - truth).abs() <= result.error).double().mean())
        off = abs(result.mean - truth.mean().item())
        covered_mean.append(off <= result.mean_error)
        independent.append(off <= result.error.square().mean().sqrt().item() / 300**0.5)
    assert torch.stack(covered).mean() > 0.9
    assert sum(covered_mean) >= 180
    assert sum(independent) < 100  # what it would be if each datapoint had draws of its own


def test_few_draws_do_not_tell_and_one_is_no_mean(x):
    weight = draws(3)
    known = [of(row) for row in exact(weight, x)]
    few = averaged(known)
    assert few.error.isinf().all()
    assert few.mean_error == torch.inf
    assert "What helps: more draws of the global latents." in few.summary()
    one = averaged(known[:1])
    assert torch.equal(one.log_prob, known[0].log_prob)
    assert (one.error == 0).all()
    assert "given one draw of the global latents" in one.summary()


def test_a_draw_that_is_not_settled_leaves_the_mean_unknown(x):
    known = [of(row) for row in exact(draws(10), x)]
    unknown = torch.arange(N) == 4
    known[2].error[unknown], known[2].bias[unknown] = torch.inf, torch.inf
    result = averaged(known)
    assert torch.equal(~result.settled, unknown)
    assert torch.equal(result.bias.isinf(), unknown)
    assert not result.error.isnan().any()
    assert "see the summary of each of result.given" in result.summary()


def fixed(program, **values):
    """The recipe of docs/evidence.md."""
    return poutine.block(poutine.condition(program, data=values), hide=list(values))


def test_the_recipe_fixes_a_global_latent_for_every_function(x):
    weight = draws(1)
    programs = [fixed(program, weight=weight[0]) for program in (model, guide)]
    assert evidence.check_elbo(*programs, x).passed
    result = evidence.importance(*programs, x, num_samples=2000)
    assert ((result.log_prob - exact(weight, x)[0]).abs() <= 3 * result.error).all()
    torch.manual_seed(4)
    expected = evidence.estimate(*programs, x)
    torch.manual_seed(4)
    given = evidence.estimate(model, guide, x, given={"weight": weight})
    assert torch.equal(given.log_prob, expected.log_prob)
    assert torch.equal(given.error, expected.error)
    # On data of the model's own making, the weight stays what it was fixed to.
    assert evidence.estimate(model, guide, x, given={"weight": draws(2)}, certify=7).certificate.lower.shape == (7,)


@pytest.mark.parametrize(
    "function",
    [
        evidence.importance,
        evidence.estimate,
        evidence.annealed,
        evidence.check_elbo,
        evidence.sandwich,
        evidence.decompose_elbo,
        evidence.inference_gap,
        evidence.to_arviz,
        evidence.impute,
        evidence.compare_with_nuts,
    ],
)
def test_without_draws_every_function_says_what_to_do(function, x):
    with pytest.raises(ValueError, match="latent site 'weight' of the model lies outside of the data plate") as caught:
        function(model, guide, x)
    assert "all datapoints share it" in str(caught.value)
    assert "evidence.estimate(..., given={'weight': draws})" in str(caught.value)
    assert "poutine.block(poutine.condition(program, data={'weight': value}), hide=['weight'])" in str(caught.value)


class Decoder(PyroModule):
    """A Bayesian network, with two global latents, of which one is in a plate."""

    def __init__(self):
        super().__init__()
        self.bias = PyroSample(dist.Normal(torch.zeros(SIZE), 1.0).to_event(1))

    def forward(self, x, label):
        with pyro.plate("pixels", SIZE):
            weight = pyro.sample("weight", dist.Normal(0.0, 1.0))
        bias = self.bias
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            mean = (z + label)[..., None] * weight + bias
            pyro.sample("x", dist.Normal(mean, SCALE).to_event(1), obs=x)


def test_a_bayesian_decoder_with_labels_and_an_autoguide(x):
    decoder, label = Decoder(), torch.arange(N) % 2

    auto = AutoNormal(poutine.block(decoder, expose=["weight", "bias"]))

    def guide(x, label):
        values = auto(x, label)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x[:, 0], 0.8))
        return values

    posterior = [guide(x, label) for _ in range(6)]
    given = {name: torch.stack([each[name] for each in posterior]).detach() for name in ("weight", "bias")}
    result = evidence.estimate(decoder, guide, (x, label), given=given)
    for i, each in enumerate(result.given):
        shifted = x - given["bias"][i] - label[:, None] * given["weight"][i]
        assert ((each.log_prob - exact(given["weight"][i : i + 1], shifted)[0]).abs() <= 3 * each.error).all()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"level": torch.zeros(3, 1)},
            ValueError,
            r"given has 'level', which is not a latent site .* \['weight', 'z'\]",
        ),
        ({"x": torch.zeros(3, N, SIZE)}, ValueError, "given has 'x', which is not a latent site of the model"),
        ({"weight": torch.zeros(SIZE)}, ValueError, r"given\['weight'\] has shape \[3\]; expected \[draws, 3\]"),
        ({"weight": torch.tensor(1.0)}, ValueError, r"given\['weight'\] has shape \[\]; expected \[draws, 3\]"),
        (
            {"weight": torch.zeros(0, SIZE)},
            ValueError,
            r"given has \[0\] draws; expected the same number for all sites",
        ),
        ({}, ValueError, r"given has \[\] draws; expected the same number for all sites"),
        ({"weight": [1.0, 2.0]}, TypeError, "given is of type dict; expected a dict of tensors"),
        (torch.zeros(5, SIZE), TypeError, "given is of type Tensor; expected a dict of tensors"),
    ],
)
def test_draws_that_cannot_be(given, error, message, x):
    with pytest.raises(error, match=message):
        evidence.estimate(model, guide, x, given=given)


def test_a_run_goes_on_only_with_the_same_draws(x, tmp_path, monkeypatch):
    monkeypatch.setitem(climbing.ROWS, "cpu", 8)  # for two blocks
    file, weight = tmp_path / "run", draws(2)
    torch.manual_seed(4)
    expected = evidence.estimate(model, guide, x, given={"weight": weight})
    torch.manual_seed(4)

    def stop(blocks):
        yield blocks[0]
        raise KeyboardInterrupt

    with pytest.raises(evidence.Interrupted, match=f"8 of {N} datapoints were done and are kept") as caught:
        evidence.estimate(model, guide, x, given={"weight": weight}, keep=file, progress=stop)
    assert torch.equal(caught.value.result.log_prob, expected.log_prob[:8])
    for other in ({"weight": weight + 0.01}, {"weight": weight[:1]}):
        with pytest.raises(ValueError, match="run is of another run"):
            evidence.estimate(model, guide, x, given=other, keep=file)
    one = [fixed(program, weight=weight[0]) for program in (model, guide)]
    with pytest.raises(ValueError, match="run is of another run: draws given is 2 there and None here"):
        evidence.estimate(*one, x, keep=file)
    result = evidence.estimate(model, guide, x, given={"weight": weight}, keep=file)
    assert torch.equal(result.log_prob, expected.log_prob)
    assert torch.equal(result.error, expected.error)
