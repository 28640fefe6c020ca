"""Memory for large data: a few rows say what programs are like, and evidence takes the rest block by block."""

from __future__ import annotations

import json
import subprocess
import sys

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoNormal

from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors
from pyro_vae.evidence.runner.blocks import Programs
from pyro_vae.programs import few_rows
from pyro_vae.weights import find_layout

MEASURED = """
import json, resource, sys, torch
from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors
from pyro_vae.weights import find_layout
torch.set_num_threads(1)
vae = VAE(priors.StandardNormal(5), likelihoods.Bernoulli(nn.mlp(5, [50], (784,))),
          posteriors.Normal(nn.mlp((784,), [50], 10)))
x = torch.zeros(40_000, 784)  # 125 MB
x[:, ::3] = 1.0
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - start
start = 0
evidence.importance(vae.model, vae.guide, x[:200], num_samples=2, compile=False, progress=iter)
start, found = peak(), {}
find_layout(vae.model, vae.guide, x)
found["find_layout"] = peak()
evidence.importance(vae.model, vae.guide, x, num_samples=1, compile=False, progress=iter)
found["importance"] = peak()
vae.check(x)
found["check"] = peak()
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_grow_with_the_rows():
    """In parts it is some tensors of 16 MB, for any number of rows; else 4 times x, 500 MB, for the layout alone."""
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    megabytes = json.loads(done.stdout)
    assert megabytes["find_layout"] < 20
    assert megabytes["importance"] < 200
    assert megabytes["check"] < 200


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch):
    """Data of more rows than these are taken as large ones are."""
    monkeypatch.setattr(few_rows, "MOST_ROWS", 100)
    pyro.clear_param_store()


X = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def amortized(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))


def lazily(x):
    """Makes its parameters when it is first called: one for each row."""
    loc = pyro.param("loc", lambda: torch.zeros(len(x), 2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def from_the_data(x):
    """Makes a parameter of all the data that it first sees."""
    loc = pyro.param("mean", lambda: x.mean(0))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc.expand(len(x), 2), 1.0).to_event(1))


def of_no_rows(x):
    scale = pyro.param("scale", lambda: torch.rand(2), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, scale).to_event(1))


def normalized(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x - x.mean(0), 1.0).to_event(1))


def first_ones(x):
    """Has one for each row, and takes the first ones for whatever rows there are."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(X[: len(x)] / 2, 0.5**0.5).to_event(1))


GUIDES = {  # how many rows it takes at once
    amortized: 100,
    of_no_rows: 100,
    lazily: 300,
    from_the_data: 300,
    normalized: 300,
    first_ones: 300,
}


@pytest.mark.parametrize("guide", GUIDES)
def test_programs_run_on_parts_only_where_that_is_the_same(guide):
    """The most rows that they are ever run on."""
    seen = []

    def watched(x):
        seen.append(len(x))
        return guide(x)

    programs = Programs(model, watched, X)
    assert max(seen) == GUIDES[guide]
    # Once the parameter is there, it is that of all data for any part of them.
    assert {len(block) for block in programs.blocks(100)} == {100 if guide is from_the_data else GUIDES[guide]}
    assert programs._log_densities.shape == (2, 300)
    assert programs.latent_size == 2


@pytest.mark.parametrize("guide", GUIDES)
def test_the_parameters_are_those_that_all_rows_make(guide):
    state = torch.get_rng_state()
    layout = find_layout(model, guide, X)
    assert torch.equal(torch.get_rng_state(), state)
    found = {name: value.shape for name, value in pyro.get_param_store().items()}
    pyro.clear_param_store()
    guide(X)
    assert found == {name: value.shape for name, value in pyro.get_param_store().items()}
    if guide is from_the_data:
        find_layout(model, guide, X)
        torch.testing.assert_close(pyro.param("mean"), X.mean(0))
    assert (layout.data_plate, layout.data_dim, layout.particle_dim) == ("data", -1, -2)


def test_a_guide_that_is_made_for_all_rows_is_not_made_for_a_few():
    guide = AutoNormal(model)
    find_layout(model, guide, X)
    assert guide(X)["z"].shape == X.shape
    assert evidence.importance(model, guide, X, num_samples=30, progress=iter).log_prob.shape == (300,)


def test_the_estimate_is_exact_where_the_guide_is():
    """For each datapoint, so that none is left out or taken for another."""
    found = evidence.importance(model, amortized, X, num_samples=2, progress=iter)
    exact = dist.Normal(torch.zeros(2), 2**0.5).to_event(1)
    torch.testing.assert_close(found.log_prob.float(), exact.log_prob(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("row", [5, 150, 299])
def test_all_rows_are_checked(row):
    x = (X > 0).float()
    x[row] = 2.0
    torch.manual_seed(0)
    vae = VAE(priors.StandardNormal(2), likelihoods.Bernoulli(nn.mlp(2, [3], 2)), posteriors.Normal(nn.mlp(2, [3], 4)))
    with pytest.raises(ValueError, match=r"outside the support|within the support"):
        Programs(vae.model, vae.guide, x)


def test_a_file_knows_all_rows(tmp_path):
    evidence.importance(model, amortized, X, num_samples=2, progress=iter, keep=tmp_path / "run")
    other = X.clone()
    other[150] += 0.1
    with pytest.raises(ValueError, match="other data or programs"):
        evidence.importance(model, amortized, other, num_samples=2, progress=iter, keep=tmp_path / "run")
