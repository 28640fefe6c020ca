"""Programs as users write them, none of them a ``VAE``, through every function of ``pyro_vae.evidence``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.testing import assert_close

from pyro_vae import evidence

N, SIZE = 6, 3


class Programs(NamedTuple):
    model: Callable[[Tensor], object]
    guide: Callable[[Tensor], object]
    x: Tensor
    log_prob: Tensor  #: The exact log p(x), ``[n]``.
    sites: dict[str, tuple[int, ...]]  #: The event shape of each latent site.


class TutorialVAE(nn.Module):
    """Written as in Pyro's tutorial: ``pyro.module``, a plate, and a decoder, here linear so that p(x) is known."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.decoder = nn.Linear(latent, SIZE)
        self.encoder = nn.Sequential(nn.Linear(SIZE, 8), nn.Tanh(), nn.Linear(8, latent))
        nn.init.normal_(self.decoder.weight, std=0.7)
        nn.init.zeros_(self.encoder[-1].weight)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = x.new_zeros(torch.Size((x.shape[0], self.latent)))
            z_scale = x.new_ones(torch.Size((x.shape[0], self.latent)))
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            loc = self.decoder(z)
            pyro.sample("obs", dist.Normal(loc, 0.8).to_event(1), obs=x.reshape(-1, SIZE))
            return loc

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = self.encoder(x)
            pyro.sample("latent", dist.Normal(z_loc, 0.9).to_event(1))


def tutorial() -> Programs:
    vae, x = TutorialVAE(2), torch.randn(N, SIZE)
    weight, bias = vae.decoder.weight.detach(), vae.decoder.bias.detach()
    covariance = weight @ weight.mT + 0.8**2 * torch.eye(SIZE)
    return Programs(vae.model, vae.guide, x, gaussian(bias, covariance, x), {"latent": (2,)})


def two_sites() -> Programs:
    """A chain z1 -> z2 -> x, with ``pyro.param`` in both programs and a plate within the plate over datapoints."""

    def model(x):
        weight = pyro.param("weight", torch.tensor([1.0, -0.5, 0.7]))
        with pyro.plate("data", len(x), dim=-2):
            z1 = pyro.sample("z1", dist.Normal(0.0, 1.0))
            z2 = pyro.sample("z2", dist.Normal(0.5 * z1, 0.8))
            with pyro.plate("pixels", SIZE, dim=-1):
                pyro.sample("x", dist.Normal(weight * z2, 0.7), obs=x)

    def guide(x):
        scale = pyro.param("scale", torch.tensor(0.9), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z1", dist.Normal(0.2 * x[:, :1], scale))
            pyro.sample("z2", dist.Normal(0.3 * x[:, :1], scale))

    weight, x = torch.tensor([1.0, -0.5, 0.7]), torch.randn(N, SIZE)
    covariance = (0.5**2 + 0.8**2) * weight[:, None] * weight + 0.7**2 * torch.eye(SIZE)
    return Programs(model, guide, x, gaussian(torch.zeros(SIZE), covariance, x), {"z1": (1,), "z2": (1,)})


def counts() -> Programs:
    """Discrete data, observed at a Poisson site; p(x) by quadrature over the one latent."""
    rates = torch.tensor([0.3, -0.2, 0.5])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Poisson((rates + 0.6 * z[..., None]).exp()).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x.mean(1) - 1.2).clamp(-1, 1) * 0.6, 1.2))

    x = torch.poisson(torch.full((N, SIZE), 1.5))
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)  # trapezoids: for a smooth density that ends at 0, exact
    likelihood = dist.Poisson((rates + 0.6 * z[:, None, None]).exp()).log_prob(x.double()).sum(-1)
    log_joint = dist.Normal(0.0, 1.0).log_prob(z)[:, None] + likelihood
    return Programs(model, guide, x, log_joint.logsumexp(0) + (z[1] - z[0]).log(), {"z": ()})


def gaussian(mean: Tensor, covariance: Tensor, x: Tensor) -> Tensor:
    return dist.MultivariateNormal(mean.double(), covariance.double()).log_prob(x.double())


@pytest.fixture(params=[tutorial, two_sites, counts], ids=lambda make: make.__name__)
def programs(request) -> Programs:
    return request.param()


def within(estimate: Tensor, std_error: Tensor, exact: Tensor) -> bool:
    """Within 6 standard errors (and float32), which fails once in 10^8 where errors are normal."""
    return bool(((estimate - exact).abs() <= 6 * std_error + 1e-4).all())


@pytest.mark.parametrize("proposal", [evidence.widened(1.2), evidence.defensive(0.2), None])
def test_importance(programs, proposal):
    chosen = {} if proposal is None else {"proposal": proposal}
    result = evidence.importance(programs.model, programs.guide, programs.x, num_samples=4000, **chosen)
    assert within(result.log_prob, result.std_error, programs.log_prob)
    assert result.std_error.max() < 0.1
    assert (result.elbo < programs.log_prob).all()


def test_annealed_and_sandwich(programs):
    model, guide, x, log_prob, _ = programs
    result = evidence.annealed(model, guide, x, num_chains=64, num_temperatures=40)
    assert within(result.log_prob, result.std_error, log_prob)
    assert result.std_error.max() < 0.2
    bounds = evidence.sandwich(model, guide, x, num_chains=32, num_temperatures=40)
    assert bounds.x.shape == x.shape
    assert bounds.gap < 0.5
    assert bounds.gap > -6 * bounds.gap_std_error


def test_gap_and_decomposition(programs):
    model, guide, x, log_prob, sites = programs
    gap = evidence.inference_gap(model, guide, x, num_samples=2000, num_steps=200)
    assert ((gap.log_prob - log_prob).abs() <= 3 * gap.log_prob_error).all()
    assert gap.converged.all()
    assert_close(gap.approximation + gap.amortization, gap.total)
    assert (gap.amortization > -6 * (gap.elbo_std_error + gap.best_elbo_std_error)).all()
    parts = evidence.decompose_elbo(model, guide, x, num_particles=2000)
    error = parts.reconstruction_std_error + parts.rate_std_error + gap.elbo_std_error.max().item()
    assert abs(parts.elbo - gap.elbo.mean().item()) < 6 * error
    assert {name: activity.shape for name, activity in parts.activity.items()} == sites


def test_check_elbo(programs):
    check = evidence.check_elbo(programs.model, programs.guide, programs.x)
    assert check.passed, check.summary()
    assert check.mean_field_valid


def test_calibration_tells_this_guide_from_the_posterior(programs):
    """These guides are as wide for every x; the prior has the right ranks in every coordinate, and ignores x."""
    model, guide, x, _, sites = programs
    many = x.repeat(200, 1)
    result = evidence.calibrate(model, guide, many)
    assert {name: ranks.shape for name, ranks in result.ranks.items()} == {
        name: (len(many), *shape) for name, shape in sites.items()
    }
    assert result.departures(1e-4)
    prior = pyro.poutine.block(pyro.poutine.uncondition(model), hide=["x", "obs", "weight", "decoder"])
    ignoring = evidence.calibrate(model, prior, many)
    assert all((p > 1e-6).all() for p in ignoring.p_values.values())
    assert ignoring.departures(1e-4)
    assert "log p(x, z)" in ignoring.departures(1e-4)


def test_nuts_and_arviz(programs):
    model, guide, x, _, sites = programs
    few = x[:2]
    comparison = evidence.compare_with_nuts(model, guide, few, num_samples=250, warmup_steps=80)
    drawn = evidence.to_arviz(model, guide, few, 8000)
    for name, shape in sites.items():
        values = torch.as_tensor(drawn["posterior"][name].values.copy())
        assert values.shape == (4, 2000, 2, *shape)
        mean, sd = comparison.nuts_mean[name], comparison.nuts_sd[name]
        # Both are draws from the posterior, by ways that have nothing in common.
        std_error = sd * (1 / comparison.ess[name] + 1 / 2000).sqrt()
        assert ((values.mean((0, 1)) - mean).abs() < 6 * std_error).all()
    assert drawn["observed_data"]
