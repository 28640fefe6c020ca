"""Missing values, on the linear-Gaussian model: what is left of a normal vector is normal, and so is what is missing."""

from __future__ import annotations

import pyro
import pytest
import torch
from linear_gaussian import LinearLikelihood
from pyro import distributions as dist
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch import nn as torch_nn
from torch.testing import assert_close

from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors, weights
from pyro_vae.evidence.draws import imputation
from pyro_vae.evidence.draws.resampling import resample

N, PIXELS, LATENT = 12, 5, 2


def make_vae(likelihood=None):
    complete = likelihood or LinearLikelihood(torch.randn(PIXELS, LATENT), torch.randn(PIXELS), 0.8)
    network = nn.mlp(PIXELS, [8], 2 * LATENT)
    torch_nn.init.zeros_(network[-1].weight)  # at first wider than the prior, so that weights are bounded
    network[-1].bias.data = torch.tensor([0.0, 0.0, 1.0, 1.0])
    network = nn.FillMissing(network)
    return VAE(priors.StandardNormal(LATENT), likelihoods.Incomplete(complete), posteriors.Normal(network))


def with_gaps(x, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = x.masked_fill(torch.rand(x.shape, generator=generator) < 0.4, torch.nan)
    x[0] = torch.nan  # nothing was observed
    x[1] = 1.0  # nothing is missing
    return x


@torch.no_grad()
def exact(vae, x):
    """log p(observed), ``[n]``, and x with E[missing given observed] in the gaps."""
    log_prob, filled, _ = exact_with_std(vae, x)
    return log_prob, filled


@torch.no_grad()
def exact_with_std(vae, x):
    """And the standard deviation of what is missing given what is observed, ``[n, pixels]``."""
    bias = vae.likelihood(torch.zeros(LATENT)).mean.double()
    weight = vae.likelihood(torch.eye(LATENT)).mean.mT.double() - bias[:, None]
    covariance = weight @ weight.mT + 0.8**2 * torch.eye(PIXELS)
    log_prob, filled, std = [], x.double().clone(), torch.zeros(x.shape, dtype=torch.float64)
    for row, spread in zip(filled, std, strict=True):
        there = ~row.isnan()
        if not there.any():
            log_prob.append(torch.zeros((), dtype=torch.float64))
            row.copy_(bias)
            spread.copy_(covariance.diagonal().sqrt())
            continue
        inner = covariance[there][:, there]
        log_prob.append(dist.MultivariateNormal(bias[there], inner).log_prob(row[there]))
        gain = torch.linalg.solve(inner, row[there] - bias[there])
        across = covariance[~there][:, there]
        row[~there] = bias[~there] + across @ gain
        rest = covariance[~there][:, ~there] - across @ torch.linalg.solve(inner, across.mT)
        spread[~there] = rest.diagonal().sqrt()
    return torch.stack(log_prob), filled, std


def test_evidence_is_that_of_what_was_observed():
    vae = make_vae()
    x = with_gaps(vae.sample(N))
    result = evidence.importance(vae.model, vae.guide, x, num_samples=10_000)
    error = (result.log_prob - exact(vae, x)[0]).abs()
    assert (error <= 6 * result.std_error + 1e-4).all()
    assert result.std_error.max() < 0.3


def test_imputation_is_the_conditional_mean():
    vae = make_vae()
    x = with_gaps(vae.sample(N))
    filled = evidence.impute(vae.model, vae.guide, x, num_samples=10_000).x
    assert torch.equal(filled[~x.isnan()], x[~x.isnan()])
    # Independent copies tell the Monte Carlo error: 10 of them, with a tenth of the samples.
    runs = evidence.impute(vae.model, vae.guide, x.repeat(10, 1), num_samples=1000).x.unflatten(0, (10, N))
    std_error = runs.double().std(0) / 10**0.5
    expected = exact(vae, x)[1]
    assert ((runs.double().mean(0) - expected).abs() <= 8 * std_error + 1e-5).all()
    assert ((filled.double() - expected).abs() <= 8 * std_error + 1e-5).all()


class WithoutVariance(LinearLikelihood):
    """Of which only draws tell the variance."""

    def forward(self, z):
        class Drawn(dist.Normal):
            @property
            def variance(self):
                raise NotImplementedError

        fn = super().forward(z).base_dist
        return Drawn(fn.loc, fn.scale).to_event(1)


@pytest.mark.parametrize("kind", [LinearLikelihood, WithoutVariance])
def test_the_spread_of_what_is_filled_in_is_that_of_the_conditional_distribution(kind):
    """In closed form, and of draws: 4000, of which a posterior draw is worth half at least; 5 standard errors."""
    vae = make_vae(kind(torch.randn(PIXELS, LATENT), torch.randn(PIXELS), 0.8))
    x = with_gaps(vae.sample(N))
    result = evidence.impute(vae.model, vae.guide, x, num_samples=4000, num_draws=3000, progress=False)
    _, mean, std = exact_with_std(vae, x)
    gaps = x.isnan()
    assert torch.equal(result.missing, gaps)
    assert (result.std[~gaps] == 0).all()
    ratio = result.std[gaps] / std[gaps]
    assert ((ratio - 1).abs() < 5 * (0.5 / 2000) ** 0.5).all()
    assert result.draws.shape == (3000, *x.shape)
    assert (result.draws[:, ~gaps] == x[~gaps]).all()
    drawn = (result.draws - mean)[:, gaps] / std[gaps]
    assert (drawn.mean(0).abs() < 5 / 1500**0.5).all()
    assert ((drawn.square().mean(0) - 1).abs() < 5 * (2 / 1500) ** 0.5).all()
    incomplete = gaps.any(1)
    assert (result.ess[incomplete] <= 4000).all()
    assert (result.ess[incomplete] > 2000).all()
    assert (result.pareto_k[incomplete] < 0.7).all()
    assert not incomplete.all()
    assert result.ess[~incomplete].isnan().all()
    assert result.pareto_k[~incomplete].isnan().all()
    assert not result.doubtful.any()


def test_the_effective_sample_size_of_chosen_draws_is_that_of_their_mean():
    """Of 1500 sets of 500 normal candidates with weights of their own, 50 are chosen of each; 5 standard errors."""
    log_weights, values = 0.8 * torch.randn(500, 1500), torch.randn(500, 1500, dtype=torch.float64)
    chosen, _, ess = resample(log_weights, 50)
    squares = values.gather(0, chosen).mean(0).square() * ess
    assert abs(squares.mean() - 1) < 5 * (2 / 1500) ** 0.5
    assert ess.max() < 50


def test_an_interrupted_imputation_has_what_was_done():
    vae = make_vae()
    x = with_gaps(vae.sample(N))

    def stop(blocks):
        yield blocks[0]
        raise KeyboardInterrupt

    torch.manual_seed(3)
    whole = evidence.impute(vae.model, vae.guide, x, num_samples=20, num_draws=4, chunk_size=100, progress=False)
    torch.manual_seed(3)
    with pytest.raises(evidence.Interrupted) as caught:
        evidence.impute(vae.model, vae.guide, x, num_samples=20, num_draws=4, chunk_size=100, progress=stop)
    part = caught.value.result
    assert part.x.equal(whole.x[:5])
    assert part.std.equal(whole.std[:5])
    assert part.draws.equal(whole.draws[:, :5])
    assert part.ess.nan_to_num(-1).equal(whole.ess[:5].nan_to_num(-1))
    with pytest.raises(ValueError, match="num_draws is 21; expected at most num_samples, which is 20"):
        evidence.impute(vae.model, vae.guide, x, num_samples=20, num_draws=21)


def test_a_guide_that_is_far_off_is_no_matter():
    """Which gives every datapoint the same narrow normal, far from the posterior of most."""
    vae = make_vae()
    x = with_gaps(vae.sample(N))
    vae.posterior.network.network[-1].bias.data = torch.tensor([3.0, -3.0, -3.0, -3.0])
    filled = evidence.impute(vae.model, vae.guide, x, num_samples=4000, progress=iter).x
    # The posterior is at most as wide as the prior, and of 4000 draws at least 2000 are worth one.
    scale = vae.likelihood(torch.eye(LATENT)).mean - vae.likelihood(torch.zeros(LATENT)).mean
    error = (filled.double() - exact(vae, x)[1]).abs() / scale.norm(dim=0)
    assert error.max() < 5 / 2000**0.5


def test_where_the_posterior_is_not_known_a_warning_says_so(monkeypatch):
    vae = make_vae()
    x = with_gaps(vae.sample(N))
    settled = imputation.settled_draws

    def unsettled(*args):
        return settled(*args)._replace(doubtful=torch.arange(len(args[1])) < 2)

    monkeypatch.setattr(imputation, "settled_draws", unsettled)
    with pytest.warns(UserWarning, match="for 2 of 12 datapoints"):
        evidence.impute(vae.model, vae.guide, x, num_samples=20)


def test_nothing_is_drawn_where_no_value_is_missing(monkeypatch):
    vae = make_vae()
    x, drawn = with_gaps(vae.sample(N)), []
    settled = imputation.settled_draws

    def counting(*args):
        drawn.append(list(args[3]))  # the indices that errors name
        assert args[1].isnan().any(1).all()
        return settled(*args)

    monkeypatch.setattr(imputation, "settled_draws", counting)
    evidence.impute(vae.model, vae.guide, x, num_samples=20)
    assert drawn == [x.isnan().any(1).nonzero()[:, 0].tolist()]
    complete = vae.sample(N)
    result = evidence.impute(vae.model, vae.guide, complete, num_samples=20, num_draws=3)
    assert len(drawn) == 1
    assert result.x.equal(complete)
    assert (result.draws == complete).all()
    assert "no value of 12 datapoints was missing" in str(result)


def test_chunks_make_no_difference_but_noise():
    vae = make_vae()
    x = with_gaps(vae.sample(6))
    values = [evidence.impute(vae.model, vae.guide, x, num_samples=2000, chunk_size=size).x for size in (1000, 4096)]
    assert_close(*values, rtol=0, atol=0.3)  # a standard error is below 0.05


@pytest.mark.parametrize("loss", [Trace_ELBO(), RenyiELBO(0, 5, vectorize_particles=True, max_plate_nesting=1)])
def test_incomplete_data_train(loss):
    """MIWAE is the importance-weighted bound of such a model (Pyro's RenyiELBO of order 0)."""

    class Learned(torch_nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch_nn.Linear(LATENT, PIXELS)

        def forward(self, z):
            return dist.Normal(self.linear(z), 0.8).to_event(1)

    source, vae = make_vae(), make_vae(Learned())
    x, test = with_gaps(source.sample(400)), source.sample(400)

    def missing_log_prob():
        return evidence.importance(vae.model, vae.guide, test, num_samples=300).mean

    before = missing_log_prob()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 0.03}), loss)
    for _ in range(150):
        assert svi.step(x) < float("inf")
    truth = evidence.importance(source.model, source.guide, test, num_samples=300).mean
    assert truth - missing_log_prob() < 0.3 * (truth - before)  # of complete data, of which it has seen none


def test_complete_data_are_as_without():
    complete = likelihoods.Bernoulli(nn.mlp(LATENT, [8], (1, 4, 4)))
    incomplete = likelihoods.Incomplete(complete)
    z = torch.randn(3, 5, LATENT)
    x = complete(z).sample()
    assert_close(incomplete(z).log_prob(x), complete(z).log_prob(x))
    assert torch.equal(incomplete(z).mean, complete(z).mean)
    x[..., :2, :] = torch.nan
    x.requires_grad_()
    incomplete(z).log_prob(x).sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in complete.parameters())


def test_what_else_is_missing():
    vae = make_vae(likelihoods.Bernoulli(nn.mlp(LATENT, [8], PIXELS)))
    bad = with_gaps(vae.sample(4))
    vae.check(bad)
    bad[1, 2] = 3.0
    with pytest.raises(ValueError, match=r"or NaN for missing: the first is x\[1, 2\] = 3.0"):
        vae.check(bad)

    class Full(torch_nn.Module):
        def forward(self, z):
            return dist.MultivariateNormal(torch.zeros(*z.shape[:-1], PIXELS), torch.eye(PIXELS))

    with pytest.raises(ValueError, match="independent given z; a MultivariateNormal has event shape"):
        make_vae(Full())


@pytest.mark.parametrize("wrap", [dist.LogNormal, dist.Beta, torch.distributions.LogNormal])
def test_likelihoods_of_which_zero_is_no_value(wrap):
    class Own(torch_nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.mlp(LATENT, [4], PIXELS)

        def forward(self, z):
            fn = wrap(self.network(z).exp(), torch.ones(()))
            return torch.distributions.Independent(fn, 1) if wrap.__module__.startswith("torch") else fn.to_event(1)

    vae = make_vae(Own())
    x = vae.sample(20).clamp(1e-3, 0.999)
    x[:, 2] = torch.nan
    with pyro.validation_enabled(False):
        log_w = weights.log_weights(vae.model, vae.guide, x, 2)
    log_w.mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in vae.parameters())
    vae.check(x)
    filled = evidence.impute(vae.model, vae.guide, x, num_samples=50).x
    assert filled.isfinite().all()


def test_impossible_data_are_not_filled_in():
    class Bounded(torch_nn.Module):
        def forward(self, z):
            return dist.Uniform(z[..., :1] * 0, torch.ones(PIXELS), validate_args=False).to_event(1)

    vae = make_vae(Bounded())
    x = torch.full((3, PIXELS), torch.nan)
    x[1, 0] = 2.0
    with pyro.validation_enabled(False), pytest.raises(ValueError, match=r"datapoint 1 has weight zero|outside"):
        evidence.impute(vae.model, vae.guide, x, num_samples=5)


def test_gaps_are_filled_with_the_value_that_is_asked_for():
    x = torch.tensor([[1.0, torch.nan], [torch.nan, 2.0]])
    for value in (0.0, 0.5):
        filled = nn.FillMissing(torch_nn.Identity(), value)(x)
        assert filled.tolist() == [[1.0, value], [value, 2.0]]
