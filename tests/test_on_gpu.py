"""From training to log p(x) on a GPU, and back on a CPU. Without a GPU the CPU stands in for it.

``benchmarks/on_gpu.sh`` runs this where there is one.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch.testing import assert_close

from pyro_vae import SVI, VAE, data, evidence, fit, likelihoods, load, nn, posteriors, priors

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
QUIET = {"progress": False, "seed": 1, "batch_size": 16}


def new_vae(device: str = DEVICE) -> VAE:
    torch.manual_seed(0)
    likelihood = likelihoods.Normal(nn.mlp(2, [8], 5), 0.5)
    return VAE(priors.StandardNormal(2), likelihood, posteriors.Normal(nn.mlp(5, [8], 4))).to(device)


def new_data(rows: int = 64) -> torch.Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(0))


def on_cpu(vae: VAE) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in vae.state_dict().items()}


@pytest.mark.parametrize("mode", ["graph", "auto"])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(tmp_path, mode):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    fit(new_vae(), new_data(), new_data(20), epochs=4, out=whole, compile=mode, **QUIET)
    fit(new_vae(), new_data(), new_data(20), epochs=2, out=stopped, compile=mode, **QUIET)
    run = fit(new_vae(), new_data(), new_data(20), epochs=4, out=stopped, compile=mode, resume=True, **QUIET)
    assert next(run.vae.parameters()).device.type == DEVICE
    # On a CPU the bits are the same; a GPU adds in any order.
    tolerance = {"rtol": 0, "atol": 0} if DEVICE == "cpu" else {"rtol": 1e-4, "atol": 1e-5}
    assert_close(on_cpu(load(stopped)), on_cpu(load(whole)), **tolerance)


def test_a_run_is_loaded_and_means_the_same_on_a_cpu(tmp_path):
    fit(new_vae(), new_data(), epochs=2, out=tmp_path / "run", **QUIET)
    here, there = load(tmp_path / "run"), load(tmp_path / "run").to(DEVICE)
    assert next(here.parameters()).device.type == "cpu"
    x, z = new_data(7), torch.randn(7, 2)
    with torch.no_grad():
        assert_close(there.likelihood(z.to(DEVICE)).log_prob(x.to(DEVICE)).cpu(), here.likelihood(z).log_prob(x))
        assert_close(there.encode(x.to(DEVICE)).cpu(), here.encode(x))


def test_log_p_is_that_of_the_cpu():
    """Whose noise is another: four errors of the difference of each datapoint, exceeded 6 times in 10^5."""
    x = new_data(10)
    results = [
        evidence.estimate(new_vae(device).model, new_vae(device).guide, x.to(device), progress=False)
        for device in (DEVICE, "cpu")
    ]
    assert all(result.settled.all() for result in results)
    (there, here), errors = (result.log_prob.cpu() for result in results), (result.error.cpu() for result in results)
    joint = torch.stack(list(errors)).square().sum(0).sqrt() / 1.96
    assert ((there - here).abs() <= 4 * joint + 1e-4).all()


def test_replayed_steps_are_those_of_pyro_with_another_optimizer_state_and_batch_size():
    vaes = [new_vae(), new_vae()]
    svis = [
        SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), TraceMeanField_ELBO(), compile=mode)
        for vae, mode in zip(vaes, (False, "graph"), strict=True)
    ]
    for rows in (8, 8, 8, 8, 8, 3, 8, 8):
        x = new_data(rows).to(DEVICE)
        losses = []
        for svi in svis:
            torch.manual_seed(rows)
            losses.append(svi.step(x))
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert_close(on_cpu(vaes[0]), on_cpu(vaes[1]), rtol=1e-3, atol=1e-5)


def test_batches_are_drawn_where_the_data_are():
    batches = data.Batches(new_data().bernoulli(torch.tensor(0.5)).to(DEVICE), 16, transform=data.binarize.dynamic)
    assert {batch.device.type for batch in batches} == {DEVICE}


TRAIN = """
import torch
from test_on_gpu import DEVICE, QUIET, new_data, new_vae
from pyro_vae import fit
run = fit(new_vae(), new_data(), epochs=2, **QUIET)
print("loss", run.history[-1]["train_loss"])
"""


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU; tests/test_distributed.py has more processes on a CPU")
def test_one_process_of_ddp_learns_what_fit_learns(tmp_path):
    program = tmp_path / "train.py"
    program.write_text(TRAIN)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", str(program)]
    tests = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    result = subprocess.run(launcher, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": tests})
    assert result.returncode == 0, result.stderr
    alone = fit(new_vae(), new_data(), epochs=2, **QUIET).history[-1]["train_loss"]
    assert float(result.stdout.split()[-1]) == pytest.approx(alone, rel=1e-4)
