"""Averages of the weights over the steps: against sums by hand, in files, in validation, and over stops."""

from __future__ import annotations

import signal
from functools import cache
from itertools import product

import pytest
import torch
from torch.utils.data import TensorDataset

from pyro_vae import VAE, CheckpointError, Interrupted, fit, likelihoods, load, nn, posteriors, priors
from pyro_vae.processes import Processes
from pyro_vae.training import BEST, LAST, ema
from pyro_vae.training.sources import Batch
from pyro_vae.training.validation import validate
from pyro_vae.training.weight_average import WeightAverage

PIXELS, LATENT, CPU = 4, 2, torch.device("cpu")
QUIET = {"progress": False, "seed": 1, "batch_size": 8, "lr": 0.05}


def new_vae(prior=None) -> VAE:
    torch.manual_seed(3)
    posterior = posteriors.Normal(nn.mlp(PIXELS, [5], 2 * LATENT))
    return VAE(
        priors.StandardNormal(LATENT) if prior is None else prior(posterior),
        likelihoods.Normal(nn.mlp(LATENT, [5], PIXELS), 0.5),
        posterior,
    ).double()


def new_data(rows: int = 40) -> torch.Tensor:
    return torch.randn(rows, PIXELS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])


class Watch:
    """A scheduler that keeps the weights after every step, and changes nothing."""

    def __init__(self, vae: VAE) -> None:
        self.vae = vae
        self.seen: list[torch.Tensor] = []

    def __call__(self, optimizer: torch.optim.Optimizer) -> Watch:  # noqa: ARG002
        return self

    def step(self) -> None:
        self.seen.append(weights(self.vae))

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


def watched(mode="graph", **options) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The weights in the end, and those after each step."""
    vae = new_vae()
    watch = Watch(vae)
    fit(vae, new_data(), scheduler=watch, scheduler_every="step", compile=mode, **QUIET, **{"epochs": 3, **options})
    return weights(vae), watch.seen


@cache
def without_averages(mode) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return watched(mode)


# Averages are taken after the step, compiled or not; to compile it takes seconds.
@pytest.mark.parametrize(("decay", "mode"), [*product([0, 0.5, 0.99], [False, "graph"]), (0.5, True)])
def test_it_is_the_sum_by_hand_and_the_steps_are_the_same_bits(mode, decay):
    average, seen = watched(mode, average=ema(decay))
    last, without = without_averages(mode)
    assert len(seen) == 15  # the last batches are as large as the others
    assert torch.equal(torch.stack(seen), torch.stack(without))
    assert torch.equal(last, seen[-1])
    shares = torch.tensor([decay ** (len(seen) - step) for step in range(1, len(seen) + 1)], dtype=torch.float64)
    by_hand = (shares[:, None] / shares.sum() * torch.stack(seen)).sum(0)
    torch.testing.assert_close(average, by_hand, rtol=1e-13, atol=1e-14)
    assert torch.equal(average, last) == (decay == 0)


def test_a_function_of_the_step_gives_other_averages():
    average, seen = watched(average=lambda step: 1 - 1 / step)
    torch.testing.assert_close(average, torch.stack(seen).mean(0), rtol=1e-13, atol=1e-14)
    # From the third step on, and then all alike.
    average, seen = watched(average=lambda step: max(0.0, 1 - 1 / max(1, step - 2)))
    torch.testing.assert_close(average, torch.stack(seen[2:]).mean(0), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan"), True, "0.9"])
def test_what_is_no_decay(decay):
    with pytest.raises(ValueError, match=r"decay is .*; expected a number from 0 to below 1"):
        ema(decay)


def test_what_is_no_average():
    with pytest.raises(TypeError, match="average is of type float; expected a function"):
        fit(new_vae(), new_data(), epochs=1, average=0.9, **QUIET)
    with pytest.raises(ValueError, match=r"average\(1\) is 2; expected a number from 0 to 1"):
        fit(new_vae(), new_data(), epochs=1, average=lambda step: 2, **QUIET)  # noqa: ARG005


@pytest.mark.parametrize("patience", [None, 5])
def test_validation_callbacks_and_files_have_the_averages(patience, tmp_path):
    vae, valid, seen = new_vae(), new_data(10), []
    options = {"epochs": 4, "average": ema(0.9), "out": tmp_path, "patience": patience, **QUIET}
    run = fit(vae, new_data(), [valid], callbacks=[lambda run: seen.append(weights(run.vae))], **options)

    def loss(vae):
        return validate(vae, (vae.model, vae.guide), [Batch((valid,), 10)], CPU, Processes(CPU))["loss"]

    last, best = new_vae(), new_vae()
    load(tmp_path / LAST, last)
    load(tmp_path / BEST, best)
    assert loss(last) == pytest.approx(run.history[-1]["valid_loss"], rel=1e-12)
    assert loss(best) == pytest.approx(min(row["valid_loss"] for row in run.history), rel=1e-12)
    assert torch.equal(weights(vae), weights(last if patience is None else best))
    assert torch.equal(seen[-1], weights(vae))
    assert torch.equal(seen[run.best_epoch - 1], weights(best))
    by_themselves = fit(new_vae(), new_data(), [valid], **{**options, "average": None, "out": None})
    assert [row["train_loss"] for row in run.history] == [row["train_loss"] for row in by_themselves.history]
    assert run.history[-1]["valid_loss"] != by_themselves.history[-1]["valid_loss"]


@pytest.mark.parametrize("mode", [False, "graph", True])
@pytest.mark.parametrize("kind", [lambda x: x, TensorDataset])
def test_a_resumed_run_ends_with_the_same_bits(mode, kind, tmp_path):
    options = {"average": ema(0.9), "compile": mode, **QUIET}
    whole = fit(new_vae(), kind(new_data()), new_data(10), epochs=5, **options)
    for epochs in (2, 5) if mode is True else (2, 3, 5):  # not from the averages, but from the weights behind them
        vae = new_vae()
        run = fit(vae, kind(new_data()), new_data(10), epochs=epochs, out=tmp_path, resume=True, **options)
    assert torch.equal(weights(vae), weights(whole.vae))
    assert [row["valid_loss"] for row in run.history] == [row["valid_loss"] for row in whole.history]


def test_a_run_that_is_interrupted_has_the_averages_so_far(tmp_path):
    def interrupt(x):
        interrupt.batches += 1
        if interrupt.batches == 8:  # in the second epoch
            signal.raise_signal(signal.SIGINT)
        return x

    options = {"epochs": 4, "average": ema(0.9), "transform": interrupt, "compile": False, **QUIET}
    interrupt.batches = -1000
    whole = fit(new_vae(), new_data(), **options)
    interrupt.batches = 0
    vae = new_vae()
    with pytest.raises(Interrupted):
        fit(vae, new_data(), out=tmp_path, **options)
    stopped = new_vae()
    load(tmp_path, stopped)
    assert torch.equal(weights(vae), weights(stopped))
    vae = new_vae()
    fit(vae, new_data(), out=tmp_path, resume=True, **options)
    assert torch.equal(weights(vae), weights(whole.vae))


def test_it_is_a_setting_of_the_run(tmp_path):
    fit(new_vae(), new_data(), epochs=1, average=ema(0.9), out=tmp_path, **QUIET)
    for other, here in ((None, "the default"), (ema(0.8), r"'_ema\(0.8\)'")):
        with pytest.raises(CheckpointError, match=rf"average is '_ema\(0.9\)' there and {here} here"):
            fit(new_vae(), new_data(), epochs=2, average=other, out=tmp_path, resume=True, **QUIET)


def test_a_run_that_starts_from_weights_starts_from_the_averages_and_averages_anew(tmp_path):
    first, vae = new_vae(), new_vae()
    fit(first, new_data(), epochs=2, average=ema(0.9), out=tmp_path, **QUIET)
    watch = Watch(vae)
    options = {**QUIET, "lr": 1e-9, "scheduler": watch, "scheduler_every": "step", "optimizer": torch.optim.SGD}
    fit(vae, new_data(), epochs=3, average=lambda step: 0.5, out=tmp_path, resume="weights", **options)  # noqa: ARG005
    torch.testing.assert_close(watch.seen[0], weights(first), rtol=1e-6, atol=1e-6)
    steps = len(watch.seen)
    by_hand = 0.5**steps * weights(first) + sum(0.5 ** (steps - step) * each for step, each in enumerate(watch.seen))
    torch.testing.assert_close(weights(vae), by_hand, rtol=1e-13, atol=1e-14)


def test_parameters_that_are_shared_or_not_trained(tmp_path):
    def prior(posterior):
        return priors.VampPrior(posterior, torch.zeros(3, PIXELS))

    vae = new_vae(prior)
    frozen = vae.likelihood.network[0].weight.requires_grad_(False)
    before = frozen.clone()
    fit(vae, new_data(), epochs=2, average=ema(0.9), out=tmp_path, **QUIET)
    assert torch.equal(frozen, before)
    saved = load(tmp_path)  # rebuilt, with a posterior in two places
    assert torch.equal(weights(saved), weights(vae))
    assert saved.prior.posterior is saved.posterior


def test_steps_that_are_skipped_do_not_count():
    vae = new_vae()
    watch = Watch(vae)
    options = {"epochs": 2, "on_nan": "skip", "scheduler": watch, "scheduler_every": "step", **QUIET}

    def spoiled(batch):
        spoiled.count += 1
        return batch * (float("nan") if spoiled.count == 3 else 1.0)

    spoiled.count = 0
    run = fit(vae, new_data(), average=lambda step: 1 - 1 / step, transform=spoiled, compile=False, **options)
    assert run.history[-1]["skipped"] == 1
    assert len(watch.seen) == 9
    torch.testing.assert_close(weights(vae), torch.stack(watch.seen).mean(0), rtol=1e-13, atol=1e-14)


def test_what_was_not_saved_by_an_average_is_refused():
    average = WeightAverage(new_vae(), ema(0.9))
    average.add()
    saved = average.content()
    again = WeightAverage(new_vae(), ema(0.9))
    again.load(saved)
    again.settle()
    assert (again.steps, again.content().keys()) == (1, saved.keys())
    name, weight = next(iter(saved["trained"].items()))
    for changed, error in (
        ({"steps": -1}, ValueError),
        ({"steps": 1.0}, ValueError),
        ({"trained": {}}, KeyError),
        ({"trained": {**saved["trained"], name: weight[:1]}}, ValueError),
        ({"trained": {**saved["trained"], name: weight.float()}}, ValueError),
    ):
        with pytest.raises(error):
            again.load({**saved, **changed})
