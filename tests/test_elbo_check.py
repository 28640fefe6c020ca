"""Four ways to the ELBO agree where they should, and the check says so where they do not."""

from __future__ import annotations

import pyro
import pytest
import torch
from linear_gaussian import LinearLikelihood, exact_log_evidence, exact_posterior, random_instance
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import nn as torch_nn
from torch.distributions import kl_divergence, register_kl

from pyro_vae import VAE, evidence, priors


def test_neural_vae(vae, x):
    check = evidence.check_elbo(vae.model, vae.guide, x, num_particles=50)
    assert check.passed, check.summary()
    # The same terms on the same noise: to float32 rounding of numbers near 12.
    assert abs(check.trace.value - check.log_weights.value) < 5e-6
    assert abs(check.mean_field.value - check.analytic.value) < 5e-6
    # A sampled KL is not an analytic one.
    assert abs(check.trace.value - check.mean_field.value) > 1e-4
    assert check.analytic.std_error > 0
    assert set(check.estimates) == {"Pyro Trace_ELBO", "mean log-weight", "Pyro TraceMeanField_ELBO", "analytic KL"}


def test_chunks_do_not_matter():
    vae, x = random_instance(seed=1, latent=2, event=3, n=40)
    for chunk_size in (2, 100, 10_000):
        check = evidence.check_elbo(vae.model, vae.guide, x, num_particles=8, chunk_size=chunk_size)
        assert check.passed, check.summary()
        # Nothing is left to chance at the exact posterior.
        assert check.log_weights.value == pytest.approx(exact_log_evidence(vae.likelihood, x).mean().item(), rel=1e-9)


class _DiagonalPosterior(torch_nn.Module):
    """The exact posterior where the columns of W are orthogonal: a diagonal normal."""

    def __init__(self, likelihood):
        super().__init__()
        self.likelihood = likelihood

    def forward(self, x):
        exact = exact_posterior(self.likelihood, x)
        scale = exact.scale_tril.diagonal(dim1=-2, dim2=-1)
        return dist.Normal(exact.loc, scale).to_event(1)


def orthogonal_instance():
    weight = torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64)).Q * torch.tensor([0.5, 1.0, 2.0]).double()
    likelihood = LinearLikelihood(weight, torch.randn(5, dtype=torch.float64), 0.7)
    vae = VAE(priors.StandardNormal(3).double(), likelihood, _DiagonalPosterior(likelihood))
    return vae, vae.sample(20)


def test_every_elbo_is_the_evidence_at_the_exact_posterior():
    vae, x = orthogonal_instance()
    exact = exact_log_evidence(vae.likelihood, x).sum().item()
    for elbo in (
        Trace_ELBO(),
        Trace_ELBO(5, vectorize_particles=True, max_plate_nesting=1),
        RenyiELBO(alpha=0.5, num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    ):
        assert -elbo.loss(vae.model, vae.guide, x) == pytest.approx(exact, rel=1e-9)
    # With an analytic KL the bound is the evidence on average, but its likelihood term still varies.
    check = evidence.check_elbo(vae.model, vae.guide, x, num_particles=2000)
    assert check.passed, check.summary()
    assert check.analytic.std_error > 1e-4
    for estimate in (check.mean_field, check.analytic):
        assert abs(estimate.value - exact / len(x)) < 5 * estimate.std_error


def test_evidence_is_elbo_plus_divergence_from_the_posterior():
    """log p(x) = ELBO + KL(q || p(z | x)), with the divergence in closed form."""
    vae, x = random_instance(seed=4, latent=3, event=4, n=15, shift=0.5, widen=0.8)
    divergence = kl_divergence(vae.posterior(x), exact_posterior(vae.likelihood, x)).mean().item()
    exact = exact_log_evidence(vae.likelihood, x).mean().item()
    check = evidence.check_elbo(vae.model, vae.guide, x, num_particles=4000)
    assert divergence > 0.3
    assert check.log_weights.std_error < 0.01
    for estimate in (check.log_weights, check.analytic):
        assert abs(estimate.value + divergence - exact) < 5 * estimate.std_error
    assert check.passed, check.summary()


def test_scales_are_left_out():
    """Of poutine.scale, and of a plate of which x is a subsample, as in training on minibatches."""

    def model(x):
        with poutine.scale(scale=2.0), pyro.plate("data", 1000, subsample=x):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    def guide(x):
        with poutine.scale(scale=2.0), pyro.plate("data", 1000, subsample=x):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    data = torch.randn(20)
    check = evidence.check_elbo(model, guide, data)
    assert check.passed, check.summary()
    assert check.trace.value == pytest.approx(dist.Normal(0.0, 2**0.5).log_prob(data).mean().item(), abs=1e-5)


def test_an_estimate_that_is_off_is_noticed(vae, x, monkeypatch):
    """By little, in each of Pyro's two losses."""
    for elbo, name in ((Trace_ELBO, "Trace_ELBO"), (TraceMeanField_ELBO, "TraceMeanField_ELBO")):
        with monkeypatch.context() as patch:
            loss = elbo.loss
            patch.setattr(elbo, "loss", lambda *args, loss=loss: 1.00002 * loss(*args))
            check = evidence.check_elbo(vae.model, vae.guide, x)
        assert not check.passed
        assert f"DISAGREEMENT: Pyro's {name} is" in check.verdict


def test_an_elbo_of_minus_infinity():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("positive", torch.where(z > 0, 0.0, -torch.inf))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    with pyro.validation_enabled(False):  # Pyro's factor refuses infinities
        check = evidence.check_elbo(model, guide, torch.zeros(5))
    assert check.trace.value == check.log_weights.value == -torch.inf
    assert check.passed


def test_a_model_without_latents():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    def guide(x):
        pass

    x = torch.randn(5)
    exact = dist.Normal(0.0, 1.0).log_prob(x).mean().item()
    check = evidence.check_elbo(model, guide, x)
    assert check.log_weights.value == pytest.approx(exact, rel=1e-6)
    assert evidence.importance(model, guide, x, num_samples=30).mean == pytest.approx(exact, rel=1e-6)


def _hierarchy(x):
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(0.0, 1.0))
        bottom = pyro.sample("bottom", dist.Normal(top, 1.0))
        pyro.sample("x", dist.Normal(bottom, 1.0), obs=x)


def _upside_down(x):
    """In the model bottom depends on top, here top on bottom: the mean-field estimate is then wrong."""
    with pyro.plate("data", len(x)):
        bottom = pyro.sample("bottom", dist.Normal(x, 1.0))
        pyro.sample("top", dist.Normal(bottom, 1.0))


@pytest.mark.filterwarnings("ignore:Failed to verify mean field restriction")
def test_where_the_mean_field_condition_fails_it_is_noticed():
    check = evidence.check_elbo(_hierarchy, _upside_down, torch.randn(50), num_particles=200)
    assert not check.passed
    assert not check.mean_field_valid
    assert "the mean log-weight is" in check.verdict
    assert "TraceMeanField_ELBO is not valid for these programs" in check.summary()
    # It is Pyro's estimate that is off, and ours with the same terms equals it.
    assert check.mean_field.value == pytest.approx(check.analytic.value, rel=1e-5)
    assert check.trace.value == pytest.approx(check.log_weights.value, rel=1e-5)


def _skewed_hierarchy(x):
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.StudentT(5.0))  # no KL divergence from a Laplace distribution is known
        bottom = pyro.sample("bottom", dist.Laplace(top, 1.0))
        pyro.sample("x", dist.Normal(bottom, 1.0), obs=x)


def _skewed_upside_down(x):
    with pyro.plate("data", len(x)):
        bottom = pyro.sample("bottom", dist.Laplace(x, 1.0))
        pyro.sample("top", dist.Laplace(bottom, 1.0))


def _right_way_up(x):
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(x / 3, 1.0))
        pyro.sample("bottom", dist.Normal((top + x) / 2, 1.0))


@pytest.mark.filterwarnings("ignore:Failed to verify mean field restriction")
def test_that_is_so_without_a_gaussian_too_and_not_for_a_hierarchy_the_right_way_up():
    x = torch.randn(50)
    check = evidence.check_elbo(_skewed_hierarchy, _skewed_upside_down, x, num_particles=400)
    assert check.analytic is None
    assert not check.mean_field_valid
    assert evidence.check_elbo(_hierarchy, _right_way_up, x, num_particles=400).mean_field_valid


def test_a_wrong_estimate_is_not_taken_for_an_invalid_one(vae, x, monkeypatch):
    loss = TraceMeanField_ELBO.loss
    monkeypatch.setattr(TraceMeanField_ELBO, "loss", lambda *args: 1.01 * loss(*args))
    check = evidence.check_elbo(vae.model, vae.guide, x)
    assert not check.passed
    assert check.mean_field_valid


def test_a_right_check_rarely_cries_wolf():
    """At 4 standard errors, 6 in 10^5; with these fixed seeds, never."""
    vae, x = orthogonal_instance()
    for seed in range(50):
        torch.manual_seed(seed)
        assert evidence.check_elbo(vae.model, vae.guide, x, num_particles=16).passed


def test_it_is_repeatable_and_independent_between_calls(vae, x):
    torch.manual_seed(5)
    first, second = (evidence.check_elbo(vae.model, vae.guide, x) for _ in range(2))
    torch.manual_seed(5)
    again = evidence.check_elbo(vae.model, vae.guide, x)
    assert first == again
    assert first.log_weights != second.log_weights


def test_standard_error_is_that_of_repetition(vae, x):
    """The spread of 200 repetitions is the standard error they report: within 25%, five times its own error."""
    checks = [evidence.check_elbo(vae.model, vae.guide, x, num_particles=4) for _ in range(200)]
    for name in ("log_weights", "analytic"):
        values = torch.tensor([getattr(check, name).value for check in checks], dtype=torch.float64)
        reported = torch.tensor([getattr(check, name).std_error for check in checks]).square().mean().sqrt()
        assert values.std().item() == pytest.approx(reported.item(), rel=0.25)


def test_one_particle_has_no_standard_error(vae, x):
    with pytest.raises(ValueError, match="num_particles is 1; expected an integer of at least 2"):
        evidence.check_elbo(vae.model, vae.guide, x, num_particles=1)


def test_mean_field_is_pyros_own(vae, x):
    check = evidence.check_elbo(vae.model, vae.guide, x, num_particles=5000)
    loss = TraceMeanField_ELBO(num_particles=2000, vectorize_particles=True).loss(vae.model, vae.guide, x)
    joint = check.mean_field.std_error * (1 + 5000 / 2000) ** 0.5
    assert abs(-loss / len(x) - check.mean_field.value) < 5 * joint


def cancelling(s: float, n: int = 2000, seed: int = 0):
    """A correct pair of programs: the terms are tens of nats, and their sum is near zero for scales near 0.222."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(784, 20, generator=generator) / 20**0.5
    covariance = torch.linalg.inv(torch.eye(20) + weight.mT @ weight / s**2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(20), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.mT, s).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            scale = covariance.diagonal().sqrt()
            pyro.sample("z", dist.Normal(x @ weight @ covariance / s**2, scale).to_event(1))

    z = torch.randn(n, 20, generator=generator)
    return model, guide, z @ weight.mT + s * torch.randn(n, 784, generator=generator)


def test_terms_that_cancel_are_rounded_as_large_as_they_are(monkeypatch):
    """No disagreement about an ELBO near zero; and one of a tenth of a nat in a million is still seen."""
    nearest = torch.inf
    for s in (0.2219, 0.222, 0.2221, 0.2225):
        model, guide, x = cancelling(s, 400)
        check = evidence.check_elbo(model, guide, x)
        assert check.passed, check.summary()
        nearest = min(nearest, abs(check.log_weights.value))
        assert check.seen[0] < 3e-4
    assert nearest < 2  # while log p(x | z) and log q(z | x) are some 60 nats each
    for elbo in (Trace_ELBO, TraceMeanField_ELBO):
        with monkeypatch.context() as patch:
            loss = elbo.loss
            patch.setattr(elbo, "loss", lambda *args, loss=loss: loss(*args) + 400 * 2 * check.seen[0])
            assert not evidence.check_elbo(model, guide, x).passed


class Shifted(dist.Laplace):
    """A Laplace distribution for which somebody registered a KL divergence that is wrong by a constant."""

    off = 0.0

    def expand(self, batch_shape, _instance=None):
        return super().expand(batch_shape, self._get_checked_instance(Shifted, _instance))


@register_kl(Shifted, dist.Laplace)
def _wrong_kl(q, p):
    return kl_divergence(dist.Laplace(q.loc, q.scale), p) + Shifted.off


def shifted_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Laplace(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def shifted_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", Shifted(x / 2, 0.4))


@pytest.mark.parametrize("n", [1, 2, 20])
def test_of_few_datapoints_it_says_what_difference_it_would_have_seen(n, monkeypatch):
    """And that holds: 98 of 100 are noticed (fewer than 90 with probability 1e-4), and of none less than 1 in 1000."""
    x = torch.randn(n)
    checks = [evidence.check_elbo(shifted_model, shifted_guide, x) for _ in range(50)]
    assert sum(not check.passed for check in checks) <= 1
    check = checks[0]
    assert check.num_samples >= 2000
    assert check.seen[0] < 1e-4 < check.seen[1] < 0.5
    assert f"and one of {check.seen[1]:.2g} between a sampled and an analytic KL divergence" in check.summary()
    monkeypatch.setattr(Shifted, "off", check.seen[1])
    found = sum(not evidence.check_elbo(shifted_model, shifted_guide, x).passed for _ in range(100))
    assert found >= 90
    monkeypatch.setattr(Shifted, "off", check.seen[1] / 6)  # one standard error: P(|t| > 3) at most
    found = sum(not evidence.check_elbo(shifted_model, shifted_guide, x).passed for _ in range(100))
    assert found <= 5


@pytest.mark.parametrize(("n", "num_particles"), [(1, 2), (1, 16), (2, 16), (5, 4)])
def test_too_few_samples_say_so(n, num_particles, monkeypatch):
    """16 samples of a skewed difference are beyond 4 of their standard errors in 3 of 100 cases."""
    x = torch.randn(n)
    for _ in range(50):
        check = evidence.check_elbo(shifted_model, shifted_guide, x, num_particles=num_particles)
        assert check.passed, check.summary()
        assert check.seen[1] == torch.inf
        assert "are too few to compare a sampled with an analytic KL divergence: take 100" in check.summary()
    loss = Trace_ELBO.loss
    monkeypatch.setattr(Trace_ELBO, "loss", lambda *args: loss(*args) + 1e-3)
    assert not evidence.check_elbo(shifted_model, shifted_guide, x, num_particles=num_particles).passed


@pytest.mark.filterwarnings("ignore:Failed to verify mean field restriction")
def test_twenty_datapoints_show_that_the_mean_field_estimate_is_off():
    """By a quarter of a nat, which is E[KL(q(top | bottom) || p(top))] with the wrong one of two draws of bottom."""

    def upside_down(x):
        with pyro.plate("data", len(x)):
            bottom = pyro.sample("bottom", dist.Normal(x, 1.0))
            pyro.sample("top", dist.Normal(0.25 * bottom, 1.0))

    x = torch.randn(20)
    many = evidence.check_elbo(_hierarchy, upside_down, x, num_particles=20_000)
    off = many.log_weights.value - many.analytic.value
    assert 0.2 < off < 0.3
    checks = [evidence.check_elbo(_hierarchy, upside_down, x) for _ in range(50)]
    assert sum(check.mean_field_valid for check in checks) <= 5
    # With fewer draws it may go unnoticed, and is then within what is said to be seen.
    few = [evidence.check_elbo(_hierarchy, upside_down, x, num_particles=6) for _ in range(50)]
    assert sum(check.passed for check in few) > 0
    assert all(off < check.seen[1] for check in few if check.passed)


def test_a_kl_divergence_that_only_some_sites_have_is_compared_draw_by_draw():
    """As precisely as one that all have: the draws of the site without one cancel."""
    check = evidence.check_elbo(_skewed_hierarchy, _right_way_up_skewed, torch.randn(50), num_particles=400)
    assert check.analytic is None
    assert check.passed, check.summary()
    assert check.seen[1] < 6 * check.log_weights.std_error


def _right_way_up_skewed(x):
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(x / 3, 1.0))  # no KL divergence from a Student t distribution is known
        pyro.sample("bottom", dist.Laplace((top + x) / 2, 1.0))


def test_infinite_and_finite_do_not_agree(monkeypatch):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("positive", torch.where(z > 0, 0.0, -torch.inf))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    monkeypatch.setattr(Trace_ELBO, "loss", lambda *_: 12.0)
    with pyro.validation_enabled(False):
        check = evidence.check_elbo(model, guide, torch.zeros(5))
    assert check.log_weights.value == -torch.inf
    assert not check.passed


def test_a_large_likelihood_does_not_hide_the_latents(monkeypatch):
    """Its rounding is a nat, and yet a KL divergence that is off by a tenth is seen: it has nothing to do with it."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Laplace(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("constant", torch.full((len(x),), 1e6))

    x = torch.randn(1000)
    assert evidence.check_elbo(model, shifted_guide, x).passed
    monkeypatch.setattr(Shifted, "off", 0.1)
    check = evidence.check_elbo(model, shifted_guide, x)
    assert check.seen[0] > 1
    assert not check.passed
