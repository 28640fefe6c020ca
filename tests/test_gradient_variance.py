"""The moments of gradients, and what is known of the gradients of each loss."""

from __future__ import annotations

import math

import pyro
import pytest
import torch
from linear_gaussian import exact_log_evidence, exact_posterior, random_instance
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.distributions import constraints

from pyro_vae.infer import gradient_variance
from pyro_vae.infer.losses import ELBO, IWAE, DReG, ScoreFunction, StickingTheLanding, leave_one_out

Z = 5.5  # standard errors; false alarms: 4e-8 each, for a normal


class MeanField:
    """A linear-Gaussian model and an independent normal guide of its own, whose ELBO has a closed form."""

    def __init__(self, n=6, distance=2.0):
        self.vae, self.x = random_instance(2, 2, 3, n)
        self.vae.requires_grad_(False)
        posterior = exact_posterior(self.vae.likelihood, self.x)
        scale = posterior.precision_matrix.diagonal(dim1=-2, dim2=-1).rsqrt().expand(n, 2)  # of the best q
        self.loc = (posterior.loc + distance * scale * torch.randn(n, 2, dtype=torch.float64)).requires_grad_()
        self.log_scale = (scale.log() + 0.1 * distance * torch.randn(n, 2, dtype=torch.float64)).requires_grad_()
        self.parameters = {"loc": self.loc, "log_scale": self.log_scale}
        self.model = self.vae.model

    def guide(self, x):
        pyro.param("loc", self.loc)
        pyro.param("log_scale", self.log_scale)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))

    def exact_gradient(self):
        """Of the negative ELBO: KL(q || p(z | x)) of normals, since log p(x) is a constant."""
        posterior = exact_posterior(self.vae.likelihood, self.x)
        q = torch.distributions.MultivariateNormal(self.loc, torch.diag_embed((2 * self.log_scale).exp()))
        kl = torch.distributions.kl_divergence(q, posterior).sum()
        loss = kl - exact_log_evidence(self.vae.likelihood, self.x).sum()
        return loss.item(), dict(
            zip(self.parameters, torch.autograd.grad(loss, list(self.parameters.values())), strict=True)
        )


LOSSES = {
    "score function": ScoreFunction(4),
    "score function, baseline": ScoreFunction(4, leave_one_out),
    "sampled KL": ELBO(),
    "Pyro, sampled KL": Trace_ELBO(),
    "analytic KL": TraceMeanField_ELBO(),
    "sticking the landing": StickingTheLanding(),
    "DReG of one": DReG(1),
}


def test_every_estimator_of_the_elbos_gradient_agrees_with_the_exact_one():
    case = MeanField()
    _, exact = case.exact_gradient()
    results = gradient_variance(case.model, case.guide, case.x, LOSSES, num_draws=500)
    assert list(results) == list(LOSSES)
    for moments in results.values():
        assert moments.num_draws == 500
        for name, value in exact.items():
            assert ((moments.mean[name] - value).abs() < Z * moments.mean_std_error[name]).all()
    variance = {name: moments.total_variance for name, moments in results.items()}
    assert variance["score function"] > variance["score function, baseline"] > variance["sampled KL"]
    # The same estimator, computed by two libraries.
    assert variance["sampled KL"] == pytest.approx(variance["Pyro, sampled KL"], rel=0.3)


def test_the_variance_of_a_known_gradient():
    """The gradient of (a noise)^2 / 2 is a noise^2, of mean a and variance 2 a^2."""
    a = torch.tensor([1.0, 3.0], requires_grad=True)

    def loss(_model, _guide, x):
        return ((a * torch.randn(2)).square() / 2).sum() + 0 * x.sum()

    result = gradient_variance(None, None, torch.zeros(1), {"it": loss}, num_draws=20_000, parameters={"a": a})["it"]
    assert torch.allclose(result.mean["a"], torch.tensor([1.0, 3.0]).double(), atol=0.15)
    assert abs(result.total_variance - 2 * 10) < Z * result.total_variance_std_error
    # Var (noise^2 - 1)^2 = 60 - 4 = 56 for a = 1, times a^4.
    assert result.total_variance_std_error == pytest.approx(math.sqrt(56 * 82 / 20_000), rel=0.2)
    assert result.signal_to_noise == pytest.approx(math.sqrt(10 / 20), rel=0.1)


def test_noise_alone_is_no_signal():
    """Ten draws of 2000 entries without a mean: their own mean has the norm that 1 / 10 of the variance gives it."""
    a = torch.zeros(2000, requires_grad=True)
    losses = {"it": lambda _model, _guide, x: (a * torch.randn(2000)).sum() + 0 * x.sum()}
    moments = gradient_variance(None, None, torch.zeros(1), losses, num_draws=10, parameters={"a": a})["it"]
    assert moments.mean["a"].norm() / math.sqrt(moments.total_variance) == pytest.approx(math.sqrt(0.1), rel=0.2)
    # The square of what is left is 0 +- sqrt(2 / 2000) / 10, and no more than 5.5 times that.
    assert moments.signal_to_noise**2 < Z * math.sqrt(2 / 2000) / 10


def test_moments_are_those_of_the_draws_themselves():
    """Recorded or not, the draws are the ones that the generator gives, one after the other."""
    case = MeanField()
    draws = []

    def loss(model, guide, x):
        return ELBO()(model, guide, x)

    def unrecordable(model, guide, x):
        value = ELBO()(model, guide, x)
        assert float(value.detach()) < 1e9  # looks at it
        draws.append(torch.autograd.grad(value, [case.loc], retain_graph=True)[0])
        return value

    results = gradient_variance(case.model, case.guide, case.x, {"a": loss, "b": unrecordable}, num_draws=50)
    assert results["a"].total_variance == pytest.approx(results["b"].total_variance, rel=1.0)
    last = torch.stack(draws[-50:])
    assert torch.allclose(results["b"].mean["loc"], last.mean(0))
    assert torch.allclose(results["b"].variance["loc"], last.var(0))


def test_the_guides_gradient_of_iwae_drowns_in_noise_but_not_dregs():
    """Rainforth et al. 2018, theorem 1, and Tucker et al. 2018, section 6: of 1 and 64 particles, close to the posterior."""
    case = MeanField(distance=0.1)
    losses = {f"{kind.__name__} {k}": kind(k) for kind in (IWAE, DReG) for k in (1, 64)}
    ratio = {
        name: moments.signal_to_noise
        for name, moments in gradient_variance(case.model, case.guide, case.x, losses, num_draws=1000).items()
    }
    assert ratio["IWAE 64"] < 0.7 * ratio["IWAE 1"]
    assert ratio["DReG 64"] > 2 * ratio["DReG 1"]


def test_parameters_are_those_of_the_guide_or_the_ones_asked_for():
    vae, x = random_instance(0, 2, 3, 4, widen=1.2)

    def guide(x):
        scale = pyro.param("scale", torch.ones(2, dtype=torch.float64), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2, dtype=torch.float64), scale).to_event(1))

    result = gradient_variance(vae.model, guide, x, {"elbo": ELBO()}, num_draws=5)["elbo"]
    assert list(result.mean) == ["scale"]
    parameters = dict(vae.likelihood.named_parameters())
    result = gradient_variance(vae.model, guide, x, {"elbo": ELBO()}, num_draws=5, parameters=parameters)["elbo"]
    assert {name: value.shape for name, value in result.mean.items()} == {
        name: value.shape for name, value in parameters.items()
    }
    assert all(parameter.grad is None for parameter in parameters.values())


def test_bad_arguments_are_named():
    case = MeanField()
    with pytest.raises(ValueError, match="num_draws is 2"):
        gradient_variance(case.model, case.guide, case.x, {}, num_draws=2)
    with pytest.raises(TypeError, match="loss is 'iwae'"):
        gradient_variance(case.model, case.guide, case.x, {"a": "iwae"})
    with pytest.raises(ValueError, match="the guide has no parameters"):
        gradient_variance(case.model, lambda _: None, case.x, {"a": ELBO()})
