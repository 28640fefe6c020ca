"""Posterior draws for ArviZ: from the right distribution, in the right groups, with ArviZ before and after 1.0."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pyro
import pytest
import torch
from linear_gaussian import exact_posterior, random_instance
from pyro import distributions as dist
from torch.testing import assert_close

from pyro_vae import evidence, weights
from pyro_vae.evidence.draws.resampling import posterior_draws, resample
from pyro_vae.evidence.draws.settled_draws import _from_chains, settled_draws
from pyro_vae.evidence.ladder.ladder import Ladder
from pyro_vae.evidence.results.methods import ANNEALED, FROM_PRIOR, GUIDE, WITH_PRIOR
from pyro_vae.evidence.results.running_weights import RunningWeights
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.evidence.unconstrained.annealed_path import AnnealedPath, FromPrior, sigmoid_schedule
from pyro_vae.evidence.unconstrained.log_joint import LogJoint

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


@pytest.mark.parametrize(("shift", "widen"), [(4.0, 1.0), (0.0, 0.2), (3.0, 0.5)])
def test_draws_are_from_the_posterior_where_the_guide_is_far_off(shift, widen):
    """Of 2000 draws: mean and covariance within 5 standard errors, for 6 datapoints of two dimensions each."""
    vae, x = random_instance(seed=3, latent=2, event=3, n=6, shift=shift, widen=widen)
    result = evidence.estimate(vae.model, vae.guide, x, progress=iter)
    for idata in (result.to_arviz(2000), evidence.to_arviz(vae.model, vae.guide, x, 2000, progress=iter)):
        assert idata.constant_data["settled"].values.all()
        z = torch.from_numpy(idata.posterior["z"].values).flatten(0, 1)
        check_moments(z, exact_posterior(vae.likelihood, x))


def check_moments(z, exact):
    """Draws ``[draws, n, 2]`` against a normal: in its own coordinates they are standard, up to 5 standard errors."""
    effective = len(z) / 2  # as weights halve their number at most
    y = torch.linalg.solve_triangular(exact.scale_tril, (z - exact.loc)[..., None], upper=False)[..., 0]
    assert (y.mean(0).abs() < 5 / effective**0.5).all()
    covariance = torch.einsum("dni,dnj->nij", y, y) / len(y)
    assert ((covariance - torch.eye(2)).abs() < 5 * (2 / effective) ** 0.5).all()


def test_a_proposal_that_is_given_is_taken():
    """A guide that is hopeless, as it is."""
    vae, x = random_instance(seed=3, latent=2, event=3, n=6, shift=6.0, widen=0.3)
    idata = evidence.to_arviz(vae.model, vae.guide, x, 400, proposal=weights.terms, progress=iter)
    y = torch.from_numpy(idata.posterior["z"].values).flatten(0, 1).mean(0) - exact_posterior(vae.likelihood, x).loc
    assert (y.abs() > 0.1).all()
    assert not idata.constant_data["settled"].values.any()


WIDTH = 0.2  # of the ring


def ring(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.norm(dim=-1), WIDTH), obs=x)


def beside_it(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2), 0.3).to_event(1))


@pytest.fixture
def ladders(monkeypatch):
    """Those that are climbed."""
    climbed = []

    class Recorded(Ladder):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            climbed.append(self)

    monkeypatch.setattr("pyro_vae.evidence.draws.settled_draws.Ladder", Recorded)
    return climbed


def test_draws_by_annealing_are_from_a_posterior_that_is_a_ring(ladders):
    """Which no normals at modes are: the radius by quadrature, and no direction is preferred; 5 standard errors."""
    x = torch.tensor([1.0, 2.0])
    drawn = settled_draws(Programs(ring, beside_it, x), x, 400)
    (ladder,) = ladders
    assert (ladder.columns["method"] >= ANNEALED).any()
    assert not drawn.doubtful.any()
    r = torch.linspace(1e-3, 6, 20_000)
    density = (r.log() - r**2 / 2 - ((x[:, None] - r) / WIDTH) ** 2 / 2).softmax(-1)
    mean = (density * r).sum(-1)
    deviation = ((density * r**2).sum(-1) - mean**2).sqrt()
    z = drawn.latents["z"]
    effective = 200  # after chains are chosen by their weights
    assert ((z.norm(dim=-1).mean(0) - mean).abs() < 5 * deviation / effective**0.5).all()
    direction = z / z.norm(dim=-1, keepdim=True)
    assert (direction.mean(0).abs() < 5 * (0.5 / effective) ** 0.5).all()


def test_chains_go_along_the_path_of_their_own_datapoint():
    """A path is that of the rows that were annealed, not of all. With so few temperatures, weights matter.

    Means within 5 errors of 400 draws, of 4000 chains.
    """
    vae, x = random_instance(seed=6, latent=2, event=5, n=6)
    programs, known, rows = Programs(vae.model, vae.guide, x), torch.tensor([1, 3, 4]), torch.tensor([3, 4])
    log_joint = LogJoint(vae.model, x, programs.layout, programs.chunk_size)
    path = AnnealedPath(FromPrior(log_joint, known), 3)
    schedule = path.pilot(60, sigmoid_schedule(48))
    annealing = SimpleNamespace(log_joint=log_joint, paths={FROM_PRIOR: (known, path, schedule)})
    z, *_ = _from_chains(annealing, FROM_PRIOR, rows, torch.tensor([6, 8]), 4000)
    exact = exact_posterior(vae.likelihood, x[rows])
    error = exact.covariance_matrix.diagonal(dim1=-2, dim2=-1).sqrt() / 400**0.5
    assert ((z.mean(0) - exact.loc).abs() < 5 * error).all()


def classes(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
        pyro.sample("x", dist.Normal(z.to(x.dtype), 1.0), obs=x)


def classes_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Categorical(torch.tensor([0.9, 0.05, 0.05]).expand(len(x), 3)))


def test_discrete_latents_come_from_the_guide_or_the_prior(ladders):
    x = torch.tensor([0.0, 1.0, 2.5])
    drawn = settled_draws(Programs(classes, classes_guide, x), x, 4000)
    assert set(ladders[0].columns["method"].tolist()) <= {GUIDE, WITH_PRIOR}
    z = torch.arange(3.0)
    exact = (torch.tensor([0.2, 0.3, 0.5]).log() - (x[:, None] - z) ** 2 / 2).softmax(-1)
    share = (drawn.latents["z"][..., None] == z).double().mean(0)
    assert ((share - exact).abs() < 5 * (0.25 / 2000) ** 0.5).all()


def test_draws_are_doubtful_where_the_error_of_the_estimate_is_not_known(monkeypatch):
    class Unsure(Ladder):
        def climb(self):
            columns = super().climb()
            columns["error"][1] = torch.inf
            return columns

    monkeypatch.setattr("pyro_vae.evidence.draws.settled_draws.Ladder", Unsure)
    vae, x = random_instance(seed=3, latent=2, event=3, n=3)
    assert settled_draws(Programs(vae.model, vae.guide, x), x, 8).doubtful.tolist() == [False, True, False]


def test_draws_are_chosen_by_weights_of_which_the_largest_are_smoothed():
    """With a heavy tail: k-hat, and the share of all but the largest weights, are those of the running sums."""
    log_w = 1.0 * torch.distributions.Exponential(torch.tensor(1.0, dtype=torch.float64)).sample((500, 4))
    running = RunningWeights(4, 500)
    running.update(log_w)
    k, smoothed_mean = running.pareto_smoothed()
    chosen, found, _ = resample(log_w, 40_000)
    assert_close(found, k)
    assert (k > 0.5).all()
    threshold = running.tail[-1]
    below = log_w.masked_fill(log_w > threshold, -torch.inf).logsumexp(0).exp() / (500 * smoothed_mean.exp())
    share = (log_w.gather(0, chosen) <= threshold).double().mean(0)
    assert ((share - below).abs() < 5 * (below * (1 - below) / 40_000).sqrt()).all()


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
    vae, x = random_instance(seed=3, latent=2, event=3, n=130)
    idata = evidence.to_arviz(vae.model, vae.guide, x, num_draws=1000)
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


def test_parts_of_a_block_have_their_own_rows(monkeypatch):
    """Where a block of draws is too large for the model to be run on all of it: three parts of two rows."""
    monkeypatch.setattr("pyro_vae.evidence.draws.arviz_draws.rows_of_block", lambda *_: 6)
    vae, x = random_instance(seed=3, latent=2, event=3, n=12)
    idata = evidence.to_arviz(vae.model, vae.guide, x, num_draws=20, chunk_size=40, progress=iter)
    z = torch.from_numpy(idata.posterior["z"].values)
    with torch.no_grad():
        assert_close(torch.from_numpy(idata.log_likelihood["x"].values), vae.likelihood(z).log_prob(x))


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
    with pytest.raises(TypeError, match="x has batches of"):
        evidence.to_arviz(vae.model, vae.guide, [1.0])
    chains = evidence.annealed(vae.model, vae.guide, x, num_chains=2, num_temperatures=1, num_leapfrog=1)
    with pytest.raises(ValueError, match=r"call evidence\.to_arviz"):
        chains.to_arviz()
