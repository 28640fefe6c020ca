"""Posterior draws for ArviZ: from the right distribution, in the right groups, with ArviZ before and after 1.0."""

from __future__ import annotations

import warnings

import numpy as np
import pyro
import pytest
import torch
from linear_gaussian import exact_posterior, random_instance
from pyro import distributions as dist
from torch.testing import assert_close

from pyro_vae import evidence, weights
from pyro_vae.evidence.resampling import posterior_draws

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    az = pytest.importorskip("arviz")


def test_draws_are_from_the_posterior_and_not_from_the_guide():
    """Of 4000 draws, whose weights halve their number: mean and variance within 5 standard errors."""
    vae, x = random_instance(seed=3, latent=2, event=3, n=6, shift=0.5, widen=1.3)
    layout = weights.find_layout(vae.model, vae.guide, x)
    drawn = posterior_draws(vae.model, vae.guide, x, 4000, layout)
    exact = exact_posterior(vae.likelihood, x)
    z = drawn.latents["z"]
    assert z.shape == (4000, 6, 2)
    assert (drawn.pareto_k < 0.5).all()
    deviation = exact.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt()
    error = deviation / 2000**0.5
    assert ((z.mean(0) - exact.loc).abs() < 5 * error).all()
    assert ((vae.posterior(x).mean - exact.loc).abs() > 5 * error).any()  # which the guide's are not
    assert ((z.var(0) / deviation**2 - 1).abs() < 5 * (2 / 2000) ** 0.5).all()


def test_groups(vae, x):
    result = evidence.importance(vae.model, vae.guide, x, num_samples=50)
    idata = result.to_arviz(num_draws=43)
    assert idata.posterior["z"].dims == ("chain", "draw", "datapoint", "z_dim_0")
    assert idata.posterior["z"].shape == (4, 10, 7, 2)
    assert idata.log_likelihood["x"].dims == ("chain", "draw", "datapoint")
    assert idata.log_likelihood["x"].shape == (4, 10, 7)
    assert idata.posterior_predictive["x"].shape == (4, 10, *x.shape)
    assert set(np.unique(idata.posterior_predictive["x"])) == {0.0, 1.0}
    assert idata.observed_data["x"].shape == x.shape
    assert (idata.observed_data["x"].values == x.numpy()).all()
    assert idata.constant_data["pareto_k"].shape == (7,)
    # The log-likelihood is that of the very draws beside it.
    z = torch.from_numpy(idata.posterior["z"].values)
    with torch.no_grad():
        assert_close(torch.from_numpy(idata.log_likelihood["x"].values), vae.likelihood(z).log_prob(x))


def test_blocks_of_rows_are_put_together_in_order():
    vae, x = random_instance(seed=3, latent=2, event=3, n=300)
    idata = evidence.to_arviz(vae.model, vae.guide, x, num_draws=2000)
    loc = exact_posterior(vae.likelihood, x).loc.detach().numpy()
    assert abs(idata.posterior["z"].mean(("chain", "draw")).values - loc).max() < 0.3
    assert (idata.observed_data["x"].values == x.numpy()).all()


def noisy(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), 3.0), obs=x)


def noisy_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def test_arviz_takes_it():
    x = 3 * torch.randn(6)
    idata = evidence.to_arviz(noisy, noisy_guide, x, num_draws=4000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = az.summary(idata)
        assert len(table) == 12
        assert (table["r_hat"].astype(float) < 1.02).all()
        # With one latent for each datapoint, leaving it out leaves its prior: so elpd_loo is log p(x).
        loo = az.loo(idata)
    elpd = loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo
    exact = dist.Normal(0.0, 11.0**0.5).log_prob(x).sum().item()
    assert elpd == pytest.approx(exact, abs=0.1)
    within = idata.log_likelihood["x"].mean(("chain", "draw")).sum().item()
    assert abs(within - exact) > 0.3  # which the mean log-likelihood is not


def test_arviz_draws_it(tmp_path):
    import matplotlib as mpl

    mpl.use("Agg")
    vae, x = random_instance(seed=3, latent=2, event=3, n=1, shift=0.1, widen=1.2)
    idata = evidence.to_arviz(vae.model, vae.guide, x, num_draws=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = az.plot_pair(idata, var_names=["z"])
    if hasattr(picture, "savefig"):
        picture.savefig(tmp_path / "pair.png")
    else:
        np.ravel(picture)[0].figure.savefig(tmp_path / "pair.png")
    assert (tmp_path / "pair.png").stat().st_size > 5000


def two_sites(x):
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        offset = pyro.sample("offset", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("count", dist.Poisson(rate), obs=x[:, 0])
        pyro.sample("value", dist.Normal(offset.sum(-1), 1.0), obs=x[:, 1])


def two_sites_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma(2 + x[:, 0], 2.0))
        pyro.sample("offset", dist.Normal((x[:, 1:] / 4).expand(-1, 3), 0.8).to_event(1))


def test_programs_with_several_sites():
    x = torch.stack([torch.arange(5.0), torch.randn(5)], dim=1)
    idata = evidence.to_arviz(two_sites, two_sites_guide, x, num_draws=40)
    assert idata.posterior["offset"].shape == (4, 10, 5, 3)
    assert idata.posterior["rate"].shape == (4, 10, 5)
    assert set(idata.log_likelihood.data_vars) == {"count", "value"}
    assert (idata.observed_data["count"].values == x[:, 0].numpy()).all()


def test_bad_input(vae, x):
    with pytest.raises(ValueError, match="num_draws is 3; expected an integer of at least 4"):
        evidence.to_arviz(vae.model, vae.guide, x, num_draws=3)
    with pytest.raises(TypeError, match="x is of type list"):
        evidence.to_arviz(vae.model, vae.guide, [1.0])
    chains = evidence.annealed(vae.model, vae.guide, x, num_chains=2, num_temperatures=1, num_leapfrog=1)
    with pytest.raises(ValueError, match=r"call evidence\.to_arviz"):
        chains.to_arviz()
