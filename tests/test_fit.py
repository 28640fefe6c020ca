"""``fit``: what it learns is what SVI learns, and every option does what it says."""

from __future__ import annotations

import csv
import math
from itertools import chain

import numpy as np
import pyro
import pytest
import torch
from linear_gaussian import exact_log_evidence, random_instance
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyro_vae import VAE, ConditionalVAE, NotFiniteError, data, fit, likelihoods, load, nn, posteriors, priors
from pyro_vae.infer.kl_weight import WeightedLatents, linear_warm_up
from pyro_vae.infer.losses import FreeBits
from pyro_vae.training.gradient_accumulation import GradientAccumulation

PIXELS, LATENT = 4, 2
QUIET = {"progress": False, "seed": 1}


def new_vae(**parts) -> VAE:
    torch.manual_seed(3)
    return VAE(
        parts.get("prior", priors.StandardNormal(LATENT)),
        parts.get("likelihood") or likelihoods.Normal(nn.mlp(LATENT, [5], PIXELS), 0.5),
        parts.get("posterior") or posteriors.Normal(nn.mlp(PIXELS, [5], 2 * LATENT)),
    ).double()


def new_data(rows: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, PIXELS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])


def at_the_mean(vae: VAE):
    """A loss without noise, a sum over rows."""

    def loss(model, guide, x):  # noqa: ARG001
        z = vae.posterior(x).mean
        return -(vae.likelihood(z).log_prob(x) + vae.prior().log_prob(z)).sum()

    return loss


# What is learned


@pytest.mark.parametrize("mode", [False, "graph"])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_steps_are_those_of_a_loop_by_hand(mode, kind):
    x = new_data()
    vae, by_hand = new_vae(), new_vae()
    lr = 1e-3
    run = fit(vae, x, epochs=6, batch_size=40, lr=lr, loss=at_the_mean(vae), optimizer=kind, compile=mode, **QUIET)
    optimizer, losses = kind(by_hand.parameters(), lr=lr), []
    for _ in range(6):
        loss = at_the_mean(by_hand)(None, None, x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / len(x))
    torch.testing.assert_close(weights(vae), weights(by_hand), rtol=1e-9, atol=1e-12)
    assert [row["train_loss"] for row in run.history] == pytest.approx(losses, rel=1e-9)
    assert [row["step"] for row in run.history] == [1, 2, 3, 4, 5, 6]


def test_recorded_steps_and_steps_of_pyro_learn_the_same():
    x, found = new_data(37), {}
    for mode in (False, "graph"):
        vae = new_vae()
        fit(vae, x, epochs=4, batch_size=8, lr=1e-2, compile=mode, **QUIET)
        found[mode] = weights(vae)
    torch.testing.assert_close(found[False], found["graph"], rtol=1e-8, atol=1e-10)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    first, second, third = new_vae(), new_vae(), new_vae()
    for vae, seed in ((first, 1), (second, 1), (third, 2)):
        torch.rand(seed)  # what was drawn before does not matter
        fit(vae, new_data(), epochs=2, batch_size=8, seed=seed, progress=False)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(third))


def test_validation_touches_the_evidence_at_the_exact_posterior():
    vae, x = random_instance(seed=1, latent=2, event=4, n=30)
    exact = exact_log_evidence(vae.likelihood, x).mean().item()
    run = fit(vae, x, x, epochs=1, lr=1e-300, **QUIET)
    row = run.history[0]
    assert row["valid_loss"] == pytest.approx(-exact, rel=1e-9)  # whatever is drawn
    assert row["valid_rate"] + row["valid_distortion"] == pytest.approx(row["valid_loss"], rel=1e-12)


def test_every_datapoint_is_seen_once_in_an_epoch():
    x = torch.arange(22.0, dtype=torch.float64).repeat(PIXELS, 1).T.contiguous()
    for train in (x, TensorDataset(x), DataLoader(TensorDataset(x), batch_size=5, shuffle=True)):
        vae, seen = new_vae(), []

        def loss(model, guide, batch, vae=vae, seen=seen):  # noqa: ARG001
            seen.append(batch[:, 0].tolist())
            return at_the_mean(vae)(None, None, batch)

        fit(vae, train, epochs=2, batch_size=5, loss=loss, compile=False, **QUIET)
        epochs = [list(chain(*seen[:5])), list(chain(*seen[5:]))]
        assert [len(batch) for batch in seen] == [5, 5, 5, 5, 2] * 2
        assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(22))
        assert epochs[0] != epochs[1] != sorted(epochs[1])


# What can be trained on


class Stream(IterableDataset):
    def __iter__(self):
        yield from new_data(22)


@pytest.mark.parametrize(
    "train",
    [
        new_data(22),
        TensorDataset(new_data(22), torch.arange(22)),
        # The workers persist: CPython 3.11 can hang in a fork while a thread ends, as one does after every epoch.
        DataLoader(TensorDataset(new_data(22)), batch_size=4, shuffle=True, num_workers=1, persistent_workers=True),
        Stream(),
        DataLoader(Stream(), batch_size=4),
    ],
    ids=["tensor", "data set", "loader", "stream", "loader of a stream"],
)
def test_all_kinds_of_data(train):
    vae = new_vae()
    run = fit(vae, train, train, epochs=30, batch_size=4, lr=1e-2, **QUIET)
    losses = [row["train_loss"] for row in run.history]
    assert losses[-1] < losses[0]
    assert run.history[-1]["valid_loss"] < run.history[0]["valid_loss"]


def test_programs_get_as_many_tensors_as_they_take():
    labels = torch.nn.functional.one_hot(torch.arange(20) % 3).double()
    vae = ConditionalVAE(
        priors.StandardNormal(LATENT),
        likelihoods.Normal(nn.mlp(LATENT + 3, [5], PIXELS), 0.5),
        posteriors.Normal(nn.mlp(PIXELS + 3, [5], 2 * LATENT)),
        conditions=3,
    ).double()
    before = weights(vae)
    for train in ((new_data(20), labels), TensorDataset(new_data(20), labels)):
        fit(vae, train, (new_data(20), labels), epochs=1, batch_size=6, **QUIET)
    assert not torch.equal(weights(vae), before)


def test_transforms_are_applied_at_every_visit():
    x = torch.full((64, PIXELS), 0.5)
    vae = VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(nn.mlp(LATENT, [5], PIXELS)),
        posteriors.Normal(nn.mlp(PIXELS, [5], 2 * LATENT)),
    )
    seen = []

    def transform(batch):
        seen.append(data.binarize.dynamic(batch))
        return seen[-1]

    fit(vae, x, epochs=2, batch_size=64, transform=transform, compile=False, **QUIET)
    assert all(set(batch.unique().tolist()) == {0.0, 1.0} for batch in seen)
    assert not torch.equal(seen[-1], seen[-2])


def test_data_that_cannot_be_taken():
    vae = new_vae()
    before = weights(vae)
    for train, error, message in (
        ([1, 2], TypeError, "train is of type list; expected a tensor, a Dataset or a DataLoader"),
        (new_data() / 0, ValueError, "values"),
        (new_data()[:0], ValueError, "at least one datapoint"),
        (new_data().float(), TypeError, "dtype torch.float32; expected torch.float64"),
        (new_data()[:, :3], ValueError, r"x has shape \[40, 3\]"),
        (TensorDataset(new_data().float()), TypeError, "dtype torch.float32"),
        (TensorDataset(new_data()[:0]), ValueError, "train has no"),
        (DataLoader(["a"]), TypeError, "batches of str; expected tensors"),
    ):
        with pytest.raises(error, match=message):
            fit(vae, train, epochs=1, **QUIET)
    assert torch.equal(weights(vae), before)


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size is 2.5"),
        ({"lr": -1}, ValueError, "lr is -1; expected a positive number"),
        ({"lr": math.nan}, ValueError, "lr is nan"),
        ({"clip_norm": 0}, ValueError, "clip_norm is 0"),
        ({"accumulate": 0}, ValueError, "accumulate is 0"),
        ({"patience": 3}, ValueError, "patience needs validation data"),
        ({"on_nan": "ignore"}, ValueError, "on_nan is 'ignore'; expected one of 'stop', 'skip'"),
        ({"scheduler_every": "batch"}, ValueError, "scheduler_every is 'batch'"),
        ({"optimizer": "adam"}, TypeError, "optimizer is of type str; expected a function"),
        ({"transform": 3}, TypeError, "transform is of type int"),
        ({"loss": "elbo"}, TypeError, "loss is 'elbo'"),
        ({"compile": "yes"}, ValueError, "compile is 'yes'"),
        ({"precision": "half"}, ValueError, "precision is 'half'"),
        ({"devices": 0}, ValueError, "devices is 0"),
        ({"strategy": "dp"}, ValueError, "strategy is 'dp'"),
    ],
)
def test_options_that_cannot_be(option, error, message):
    with pytest.raises(error, match=message):
        fit(new_vae(), new_data(), **{"epochs": 1, **QUIET, **option})


def test_what_is_no_vae():
    with pytest.raises(TypeError, match="vae is of type Linear; expected a module with the programs model and guide"):
        fit(torch.nn.Linear(1, 1), new_data(), epochs=1)


# Options


def test_parts_of_a_batch_give_the_gradients_of_the_whole():
    x, found = new_data(), []
    for accumulate in (1, 4, 7):
        vae = new_vae()
        options = {"lr": 1e-3, "optimizer": torch.optim.SGD, "accumulate": accumulate}
        fit(vae, x, epochs=3, batch_size=16, loss=at_the_mean(vae), **options, **QUIET)
        found.append(weights(vae))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[0], found[2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_parts_of_a_batch_are_computed_one_after_the_other(elbo):
    vae, seen = new_vae(), []
    vae.posterior.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    seen.clear()
    fit(vae, new_data(20), epochs=1, batch_size=20, loss=elbo(), accumulate=3, compile=False, **QUIET)
    assert seen == [7, 7, 6]


def test_parts_of_a_batch_have_noise_of_their_own():
    """With an ELBO of Pyro: the sum of its losses on the parts, drawn one after the other."""
    vae, x = new_vae(), new_data(10)
    torch.manual_seed(0)
    total = GradientAccumulation(Trace_ELBO(), 3)(vae.model, vae.guide, x)
    gradients = [parameter.grad.clone() for parameter in vae.parameters()]
    vae.zero_grad()
    torch.manual_seed(0)
    expected = sum(Trace_ELBO().loss_and_grads(vae.model, vae.guide, part) for part in x.chunk(3))
    assert total == pytest.approx(expected, rel=1e-12)
    for gradient, parameter in zip(gradients, vae.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 4.0])
def test_a_weight_on_the_latents_is_one_on_the_rate(elbo, weight):
    vae, x = new_vae(), new_data(10)
    scale = torch.tensor(weight, dtype=torch.float64)
    programs = WeightedLatents(vae.model, scale), WeightedLatents(vae.guide, scale)
    torch.manual_seed(0)
    with pyro.validation_enabled(False):
        loss = elbo().loss(*programs, x)
    torch.manual_seed(0)
    q = vae.posterior(x)
    z = q.rsample()
    distortion = -vae.likelihood(z).log_prob(x).sum().item()
    if elbo is Trace_ELBO:
        rate = (q.log_prob(z) - vae.prior().log_prob(z)).sum().item()
    else:
        rate = torch.distributions.kl_divergence(q.base_dist, vae.prior().base_dist).sum().item()
    assert loss == pytest.approx(distortion + weight * rate, rel=1e-10)


def test_warm_up_changes_what_is_learned_from_step_to_step():
    seen = []

    def schedule(epoch):
        seen.append(epoch)
        return linear_warm_up(2, start=0.5)(epoch)

    run = fit(new_vae(), new_data(), epochs=4, batch_size=10, kl_weight=schedule, **QUIET)
    assert list(dict.fromkeys(seen)) == [i / 4 for i in range(16)]
    assert [row["kl_weight"] for row in run.history] == pytest.approx([0.6875, 0.9375, 1.0, 1.0])
    found = []
    for mode in (False, "graph"):
        vae = new_vae()
        fit(vae, new_data(), epochs=4, batch_size=10, kl_weight=linear_warm_up(3), lr=1e-2, compile=mode, **QUIET)
        found.append(weights(vae))
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)  # the weight is no part of what was recorded
    vae = new_vae()
    fit(vae, new_data(), epochs=4, batch_size=10, lr=1e-2, **QUIET)
    assert (weights(vae) - found[0]).abs().max() > 1e-3


def test_free_bits_without_bits_is_the_elbo_with_analytic_kl():
    vae, x = new_vae(), new_data(10)
    torch.manual_seed(0)
    loss = FreeBits(1e-300)(vae.model, vae.guide, x)
    torch.manual_seed(0)
    assert loss.item() == pytest.approx(TraceMeanField_ELBO().loss(vae.model, vae.guide, x), rel=1e-12)


def test_free_bits_are_free():
    """Below the level, a dimension costs the level and has no gradient; above, it costs its KL."""
    vae, x = new_vae(), new_data(10)
    torch.manual_seed(0)
    q = vae.posterior(x)
    distortion = -vae.likelihood(q.rsample()).log_prob(x).sum()
    rates = torch.distributions.kl_divergence(q.base_dist, vae.prior().base_dist).mean(0)
    level = rates.mean().item()  # between the two
    torch.manual_seed(0)
    loss = FreeBits(level)(vae.model, vae.guide, x)
    expected = distortion + 10 * (rates.max() + level)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    parameters = list(vae.posterior.parameters())
    for found, right in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(found, right)


def test_free_bits_can_be_fitted_with_flows():
    posterior = posteriors.InverseAutoregressive(
        nn.mlp(PIXELS, [5], 2 * LATENT + 3), LATENT, 3, transforms=1, hidden_features=[8]
    )
    run = fit(new_vae(posterior=posterior), new_data(), epochs=40, lr=1e-2, loss=FreeBits(0.1), **QUIET)
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


def test_gradients_are_clipped_to_a_norm():
    for clip, is_shorter in ((1e-3, True), (1e6, False)):
        vae, free = new_vae(), new_vae()
        before, x = weights(vae), new_data()
        options = {"epochs": 1, "batch_size": 40, "lr": 1e-5, "optimizer": torch.optim.SGD, **QUIET}
        fit(vae, x, clip_norm=clip, loss=at_the_mean(vae), **options)
        fit(free, x, loss=at_the_mean(free), **options)
        moved, moved_freely = weights(vae) - before, weights(free) - before
        if (
            is_shorter
        ):  # lr times the gradient of the sum over 40 datapoints, of which the mean has the norm that is given
            assert moved.norm().item() == pytest.approx(1e-5 * 40 * clip, rel=1e-6)
            assert torch.cosine_similarity(moved, moved_freely, dim=0).item() == pytest.approx(1.0, abs=1e-6)
        else:
            torch.testing.assert_close(moved, moved_freely)


def test_schedulers():
    def rates(scheduler, every="epoch"):
        run = fit(
            new_vae(), new_data(), new_data(), epochs=4, batch_size=10, lr=0.1,
            scheduler=scheduler, scheduler_every=every, **QUIET,
        )  # fmt: skip
        return [row["lr"] for row in run.history]

    schedulers = torch.optim.lr_scheduler
    halving = rates(lambda optimizer: schedulers.StepLR(optimizer, 1, 0.5))
    assert halving == pytest.approx([0.1, 0.05, 0.025, 0.0125])
    # The rate in a row is that at the end of the epoch, after its four steps.
    assert rates(lambda optimizer: schedulers.StepLR(optimizer, 4, 0.5), "step") == pytest.approx(
        [0.05, 0.025, 0.0125, 0.00625]
    )
    plateau = rates(lambda optimizer: schedulers.ReduceLROnPlateau(optimizer, patience=0, threshold=1e9))
    assert plateau == pytest.approx([0.1, 0.01, 0.001, 0.0001])  # nothing is as good as it asks for


def test_rates_reach_recorded_steps():
    found = []
    for mode in (False, "graph"):
        vae = new_vae()
        options = {"scheduler": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)}
        fit(
            vae,
            new_data(),
            epochs=2,
            batch_size=5,
            lr=0.05,
            scheduler_every="step",
            compile=mode,
            **options,
            **QUIET,
        )
        found.append(weights(vae))
    torch.testing.assert_close(*found, rtol=1e-7, atol=1e-9)


def test_early_stopping_goes_back_to_the_best_epoch():
    vae, kept = new_vae(), []
    run = fit(
        vae, new_data(8), new_data(8, seed=1), epochs=400, lr=0.05, patience=3,
        callbacks=[lambda _: kept.append(weights(vae))], **QUIET,
    )  # fmt: skip
    losses = [row["valid_loss"] for row in run.history]
    best = losses.index(min(losses))
    assert run.best_epoch == best + 1
    assert len(losses) == best + 1 + 3 < 400
    assert run.is_done
    assert torch.equal(weights(vae), kept[best])
    assert torch.equal(kept[best], kept[-1])  # so that the last picture is of the best
    assert not torch.equal(kept[best], kept[-2])


def test_a_callback_can_end_the_run():
    rows = []

    def stop(run):
        rows.append(dict(run.history[-1]))
        return run.progress.epoch == 3

    run = fit(new_vae(), new_data(), epochs=9, callbacks=[stop, rows.append], **QUIET)
    assert run.is_done
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert len(rows) == 6


def test_modes_and_running_statistics_are_left_as_training_wants_them():
    posterior = torch.nn.Sequential(nn.mlp(PIXELS, [5], 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2 * LATENT))
    vae = new_vae(posterior=posteriors.Normal(posterior))
    vae.likelihood.eval()
    modes = [module.training for module in vae.modules()]
    fit(vae, new_data(), new_data(), epochs=2, **QUIET)
    assert [module.training for module in vae.modules()] == modes
    normalized = torch.nn.Sequential(nn.mlp(PIXELS, [5], 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2 * LATENT))
    vae = new_vae(posterior=posteriors.Normal(normalized))
    fit(vae, new_data(), new_data(), epochs=3, batch_size=10, **QUIET)
    assert normalized[1].num_batches_tracked == 12  # and no more, by rehearsing or validating


def test_validation_does_not_change_what_is_learned():
    with_it, without = new_vae(), new_vae()
    fit(with_it, new_data(), new_data(20), epochs=3, batch_size=8, **QUIET)
    fit(without, new_data(), epochs=3, batch_size=8, **QUIET)
    assert torch.equal(weights(with_it), weights(without))


# What is not finite


class Breaks(torch.nn.Module):
    """A network that gives NaN, or a gradient of NaN, for data with a first value above a threshold."""

    def __init__(self, outputs: int, how: str) -> None:
        super().__init__()
        self.network = nn.mlp(PIXELS, [5], outputs)
        self.how = how

    def forward(self, x):
        is_bad = (x[..., :1] > 50).to(x)
        if self.how == "value":
            return self.network(x) / (1 - is_bad) * (1 - is_bad)
        return self.network(x) + (1 - is_bad + (1 - is_bad) * self.network[0].weight.sum() ** 2).sqrt() - 1 + is_bad


def bad_data() -> torch.Tensor:
    x = new_data(40)
    x[17, 0] = 100.0
    return x


@pytest.mark.parametrize("mode", [False, "graph"])
def test_nan_stops_with_the_site_and_leaves_the_parameters(mode, tmp_path):
    vae = new_vae(posterior=posteriors.Normal(Breaks(2 * LATENT, "value")))
    kept = []

    class Watch(torch.optim.Adam):
        def step(self, *args, **kwargs):
            result = super().step(*args, **kwargs)
            kept.append(weights(vae))
            return result

    options = {"epochs": 2, "batch_size": 4, "optimizer": Watch, "compile": mode, "save_every": 0.0}
    with pytest.raises(NotFiniteError, match=r"at step \d+ \(epoch 1, batch \d+\) the loss is nan") as caught:
        fit(vae, bad_data(), out=tmp_path, **options, **QUIET)
    error = caught.value
    assert "site 'z' of the guide is nan at 2 of 8 places, the first [" in str(error)
    assert (error.epoch, error.batch) == (1, error.step)
    assert len(kept) == error.step - 1
    assert weights(vae).isfinite().all()
    if kept:
        assert torch.equal(weights(vae), kept[-1])
        assert "what was saved last is kept in" in str(error)
        assert torch.equal(weights(new_from(tmp_path)), kept[-1])


def new_from(folder) -> VAE:
    return load(folder, new_vae(posterior=posteriors.Normal(Breaks(2 * LATENT, "value"))))


@pytest.mark.parametrize("mode", [False, "graph"])
@pytest.mark.parametrize("how", ["value", "gradient"])
def test_steps_that_are_not_finite_can_be_skipped(how, mode):
    vae = new_vae(posterior=posteriors.Normal(Breaks(2 * LATENT, how)))
    run = fit(vae, bad_data(), epochs=3, batch_size=4, on_nan="skip", compile=mode, **QUIET)
    assert weights(vae).isfinite().all()
    assert [row["skipped"] for row in run.history] == [1, 2, 3]
    assert all(math.isfinite(row["train_loss"]) for row in run.history)


def test_a_gradient_that_is_not_finite_stops_too():
    vae = new_vae(posterior=posteriors.Normal(Breaks(2 * LATENT, "gradient")))
    with pytest.raises(NotFiniteError, match="a gradient is not finite, all densities are"):
        fit(vae, bad_data(), epochs=3, batch_size=4, **QUIET)
    assert weights(vae).isfinite().all()


def test_what_is_not_finite_is_not_saved(tmp_path):
    """Not even where a step was finite, and its update was not."""
    vae = new_vae()

    def spoil(run):
        if run.progress.epoch == 2:
            run.vae.likelihood.network[0].weight.data[0, 0] = math.inf

    with pytest.raises(NotFiniteError, match=r"likelihood.network.0.weight is (not finite|inf)"):
        fit(vae, new_data(), epochs=4, out=tmp_path, save_every=0.0, callbacks=[spoil], **QUIET)
    again = load(tmp_path)
    assert weights(again).isfinite().all()


def test_numbers_of_numpy_in_the_history_are_numbers(tmp_path):
    fit(new_vae(), new_data(), epochs=2, out=tmp_path, save_every=0.0, callbacks=[
        lambda run: run.history[-1].update(mine=np.float32(0.5))
    ], **QUIET)  # fmt: skip
    assert (tmp_path / "history.csv").read_text().splitlines()[1].endswith("0.5")  # the last is written before


def test_it_does_not_skip_for_ever():
    vae = new_vae(posterior=posteriors.Normal(Breaks(2 * LATENT, "value")))
    before = weights(vae)
    x = new_data() + 100
    with pytest.raises(NotFiniteError, match=r"at step 20 .*nor the 19 before it"):
        fit(vae, x, epochs=30, batch_size=10, on_nan="skip", **QUIET)
    assert torch.equal(weights(vae), before)


# Folders


def test_history_is_a_table_for_everybody(tmp_path):
    run = fit(new_vae(), new_data(), new_data(), epochs=3, out=tmp_path, **QUIET)
    with (tmp_path / "history.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == run.history
    assert list(rows[0])[:3] == ["epoch", "step", "train_loss"]
    assert run.seconds >= rows[-1]["seconds"] > 0


def test_a_run_is_not_overwritten(tmp_path):
    fit(new_vae(), new_data(), epochs=1, out=tmp_path, **QUIET)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match=r"there is a run in .* already: pass resume=True to resume it"):
        fit(new_vae(), new_data(), epochs=1, out=tmp_path, **QUIET)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_a_longer_run_goes_on_where_a_shorter_one_ended(tmp_path):
    whole, parts = new_vae(), new_vae()
    options = {"batch_size": 8, "kl_weight": linear_warm_up(3), **QUIET}
    fit(whole, new_data(), new_data(), epochs=5, **options)
    fit(parts, new_data(), new_data(), epochs=2, out=tmp_path, **options)
    again = new_vae()
    run = fit(again, new_data(), new_data(), epochs=5, out=tmp_path, resume=True, **options)
    assert torch.equal(weights(again), weights(whole))
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4, 5]
    done = fit(new_vae(), new_data(), new_data(), epochs=5, out=tmp_path, resume=True, **options)
    assert done.history == run.history
    assert torch.equal(weights(done.vae), weights(whole))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lr": 2e-3}, "lr is 0.001 there and 0.002 here"),
        ({"batch_size": 9}, "batch_size is 128 there and 9 here"),
        ({"optimizer": torch.optim.SGD}, "optimizer is 'Adam' there and 'SGD' here"),
        ({"train": new_data() + 1}, "train is"),
    ],
)
def test_another_run_does_not_go_on(changed, message, tmp_path):
    fit(new_vae(), new_data(), epochs=1, out=tmp_path, **QUIET)
    options = {"train": new_data(), "epochs": 2, "out": tmp_path, "resume": True, **QUIET, **changed}
    with pytest.raises(ValueError, match=message):
        fit(new_vae(), **options)
