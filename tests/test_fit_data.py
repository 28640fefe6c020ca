"""What ``fit`` and ``SVI.epoch`` can be given, and that every batch of it is looked at."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch.distributions import constraints
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pyro_vae import SVI, VAE, ConditionalVAE, SemiSupervisedVAE, data, fit, likelihoods, nn, posteriors, priors
from pyro_vae.distributions.supports import Counts, FiniteReals, Levels
from pyro_vae.infer.kl_weight import linear_warm_up
from pyro_vae.infer.losses import BetaTC, Capacity, FreeBits, InfoVAE
from pyro_vae.training.support import surely_inside

PIXELS, LATENT = 4, 2
QUIET = {"progress": False, "seed": 1, "compile": False}


def new_vae(likelihood=None, posterior=None) -> VAE:
    torch.manual_seed(3)
    return VAE(
        priors.StandardNormal(LATENT),
        likelihood or likelihoods.Normal(nn.mlp(LATENT, [5], PIXELS), 0.5),
        posterior or posteriors.Normal(nn.mlp(PIXELS, [5], 2 * LATENT)),
    )


def bernoulli() -> VAE:
    return new_vae(likelihoods.Bernoulli(nn.mlp(LATENT, [5], PIXELS)))


def incomplete() -> VAE:
    likelihood = likelihoods.Incomplete(likelihoods.Normal(nn.mlp(LATENT, [5], PIXELS), 0.5))
    return new_vae(likelihood, posteriors.Normal(nn.FillMissing(nn.mlp(PIXELS, [5], 2 * LATENT))))


def new_data(rows: int = 40) -> torch.Tensor:
    return torch.randn(rows, PIXELS, generator=torch.Generator().manual_seed(0))


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])


def rows_seen(vae, train, **options) -> list[list[float]]:
    """The first value of each datapoint, by batch, that a loss is called with."""
    seen = []

    def loss(model, guide, x):  # noqa: ARG001
        seen.append(x[:, 0].tolist())
        return vae.posterior(x).mean.square().sum()

    fit(vae, train, loss=loss, **{"epochs": 1, "batch_size": 8, **QUIET, **options})
    return seen


class Items(Dataset):
    """Datapoints made by a function."""

    def __init__(self, make, n: int = 20) -> None:
        self.make, self.n = make, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i):
        return self.make(i)


class Stream(IterableDataset):
    """A stream without length."""

    def __init__(self, x) -> None:
        self.x = x

    def __iter__(self):
        yield from self.x


class Again:
    """A collection of batches that is nobody's class."""

    def __init__(self, x, size: int) -> None:
        self.x, self.size = x, size

    def __iter__(self):
        yield from self.x.split(self.size)


# Every batch is looked at


KINDS = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x,),
    "tuple with labels": lambda x: (x, torch.arange(len(x))),
    "data set": TensorDataset,
    "loader": lambda x: DataLoader(TensorDataset(x), 8),
    "stream": Stream,
    "loader of a stream": lambda x: DataLoader(Stream(x), 8),
    "list of batches": lambda x: list(x.split(8)),
    "list of tuples": lambda x: [(batch,) for batch in x.split(8)],
    "list of dictionaries": lambda x: [{"x": batch} for batch in x.split(8)],
    "dictionary": lambda x: {"x": x},
    "collection": lambda x: Again(x, 8),
    "NumPy": lambda x: x.double().numpy(),
    "list of NumPy": lambda x: [batch.numpy() for batch in x.split(8)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_data_are_the_same_data(kind):
    x = torch.arange(20.0)[:, None].expand(20, PIXELS).contiguous()
    seen = rows_seen(new_vae(), KINDS[kind](x))
    assert [len(batch) for batch in seen] == [8, 8, 4]
    assert sorted(chain(*seen)) == list(range(20))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [255.0, -1.0, math.nan])
def test_a_value_that_cannot_be_in_a_later_batch_is_found(kind, value):
    x = new_data().bernoulli(0.5)
    x[37, 2] = value
    in_batches = kind in ("loader of a stream", "list of batches", "list of dictionaries", "collection")
    where = "batch 5 of {}: " if in_batches else ""
    with pytest.raises(ValueError, match=f"{where.format('train')}.* outside the support of the likelihood"):
        fit(bernoulli(), KINDS[kind](x), epochs=1, batch_size=8, **QUIET)
    with pytest.raises(ValueError, match=f"{where.format('valid')}.* outside the support of the likelihood"):
        fit(bernoulli(), x[:8], KINDS[kind](x), epochs=1, batch_size=8, **QUIET)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_values_are_taken_where_the_likelihood_takes_them(kind):
    x = new_data()
    x[::2, 1] = math.nan
    run = fit(incomplete(), KINDS[kind](x), KINDS[kind](x), epochs=2, batch_size=8, **QUIET)
    assert math.isfinite(run.history[-1]["train_loss"] + run.history[-1]["valid_loss"])
    with pytest.raises(ValueError, match="outside the support"):
        fit(new_vae(), KINDS[kind](x), epochs=1, batch_size=8, **QUIET)
    x[37, 2] = math.inf
    with pytest.raises(ValueError, match="outside the support"):
        fit(incomplete(), KINDS[kind](x), epochs=1, batch_size=8, **QUIET)


def test_a_run_that_goes_on_in_the_middle_of_an_epoch_looks_at_the_next_one_too(tmp_path):
    """Its first epoch is not whole."""
    x, looked, steps = new_data(), [], []

    def loss(model, guide, x):
        steps.append(len(x))
        if len(steps) == 4:
            raise RuntimeError("the power is gone")
        return Trace_ELBO().differentiable_loss(model, guide, x)

    options = {"epochs": 4, "loss": loss, "out": tmp_path, "save_every": 0.0, **QUIET}
    with pytest.raises(RuntimeError, match="the power is gone"):
        fit(new_vae(), DataLoader(TensorDataset(x), 8), **options)
    vae = new_vae()
    vae._support = None  # nothing is known of the support, so that check is called for every batch
    vae.check = lambda batch: looked.append(len(batch)) or check_shape(batch)
    fit(vae, DataLoader(TensorDataset(x), 8), resume=True, **options)
    assert len(steps) == 4 + 2 + 5 + 5 + 5
    assert looked == [8] * (2 + 5)


def check_shape(x) -> None:
    assert x.shape[1:] == (PIXELS,)


SUPPORTS = {
    "reals": (constraints.real, 0.3),
    "finite reals": (FiniteReals(), -0.3),
    "positive": (constraints.positive, 0.3),
    "nonnegative": (constraints.nonnegative, 0.0),
    "unit interval": (constraints.unit_interval, 1.0),
    "interval": (constraints.interval(-2.0, 3.0), -2.0),
    "half open": (constraints.half_open_interval(0.0, 1.0), 0.3),
    "levels": (Levels(256), 77 / 255),
    "counts": (Counts(), 3.0),
    "boolean": (constraints.boolean, 1.0),
    "integers": (constraints.nonnegative_integer, 0.0),
    "some integers": (constraints.integer_interval(1, 4), 4.0),
    "independent": (constraints.independent(constraints.positive, 1), 0.1),
}
VALUES = [-math.inf, -2.0001, -2.0, -0.5, -1e-30, 0.0, 1e-30, 0.3, 77 / 255, 1.0, 1.0001, 2.0, 3.0, 3.0001, 4.0, 5.0]


@pytest.mark.parametrize("name", SUPPORTS)
def test_the_quick_look_sees_what_the_support_says(name):
    """It never takes what the support does not; and it takes data that are as they should be."""
    support, inside = SUPPORTS[name]
    good = torch.full((6, PIXELS), inside)
    assert surely_inside(good, support)
    assert surely_inside(good.double(), support)
    for value in [*VALUES, math.inf, math.nan]:
        x = good.clone()
        x[4, 1] = value
        if surely_inside(x, support):
            assert support.check(x).all()
            assert math.isfinite(value)
        elif name not in ("half open", "levels"):  # which are looked at again
            assert not support.check(x).all() or math.isinf(value)


class Programs(torch.nn.Module):
    """Programs of a user's own, with a plate that may subsample, and no check."""

    def __init__(self, plate, scale=None, likelihood=lambda loc: dist.Normal(loc, 0.7)) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.decoder, self.encoder = nn.mlp(LATENT, [5], PIXELS), nn.mlp(PIXELS, [5], 2 * LATENT)
        self.plate, self.scale, self.likelihood = plate, scale, likelihood

    def around(self, x):
        return poutine.scale(scale=1.0 if self.scale is None else self.scale(x))

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with self.around(x), self.plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), LATENT), 1.0).to_event(1))
            pyro.sample("x", self.likelihood(self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with self.around(x), self.plate(x):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def plain(x):
    return pyro.plate("data", len(x))


@pytest.mark.parametrize("kind", ["tensor", "loader", "list of dictionaries"])
def test_programs_without_a_check_are_looked_at_too(kind):
    x = new_data().bernoulli(0.5)
    x[37, 2] = 255.0
    make = lambda **options: Programs(plain, likelihood=lambda logits: dist.Bernoulli(logits=logits, **options))  # noqa: E731
    with pytest.raises(ValueError, match=r"1 values outside the support of site 'x', Boolean\(\): the first is 255.0"):
        fit(make(), KINDS[kind](x), epochs=1, batch_size=8, **QUIET)
    x[37, 2] = 0.5  # such values often pass
    fit(make(validate_args=False), KINDS[kind](x), epochs=1, batch_size=8, **QUIET)
    with pyro.validation_enabled(False):
        fit(make(), KINDS[kind](x), epochs=1, batch_size=8, **QUIET)


# Batches, and what looks like them


def test_a_list_is_batches_and_a_tuple_what_programs_take():
    batches = [torch.zeros(50, PIXELS), torch.full((50, PIXELS), 100.0)]
    assert rows_seen(new_vae(), batches, batch_size=50) == [[0.0] * 50, [100.0] * 50]
    for train, message in (
        (tuple(batches), "a tuple of 2 tensors of which the programs take 1, and what is left is like the first"),
        ((torch.zeros(50, PIXELS), torch.zeros(20, PIXELS)), "a tuple of tensors of 50, 20 datapoints; .* make a list"),
        ((new_data(), new_data(39)[:, 0]), "a tuple of tensors of 40, 39 datapoints"),
        ([], "train has no datapoints"),
        ({"x": new_data(), "y": new_data(39)}, "of 40, 39 datapoints"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(new_vae(), train, epochs=1, **QUIET)
    for train, message in (
        (iter(batches), "train is of type list_iterator, which can be iterated over only once"),
        ((batch for batch in batches), "train is of type generator, which can be iterated over only once"),
        ({"y": new_data()}, "a batch has the keys y; the programs take x"),
        ((new_data(), "labels"), "train is a tuple of Tensor, str; expected tensors"),
        (np.array(["a", "b"]), "train is an array of <U1"),
        ([["a", "b"]], "batches of str; expected tensors"),
        ("data", "train is of type str; expected a tensor, a Dataset or a DataLoader"),
    ):
        with pytest.raises(TypeError, match=message):
            fit(new_vae(), train, epochs=1, **QUIET)


def conditional() -> ConditionalVAE:
    torch.manual_seed(3)
    return ConditionalVAE(
        priors.StandardNormal(LATENT),
        likelihoods.Normal(nn.mlp(LATENT + 3, [5], PIXELS), 0.5),
        posteriors.Normal(nn.mlp(PIXELS + 3, [5], 2 * LATENT)),
        conditions=3,
    )


def test_dictionaries_are_keywords():
    """In any order, and more than the programs take; the result is that of a tuple, in all of the run."""
    x, y = new_data(20), torch.nn.functional.one_hot(torch.arange(20) % 3).float()
    found = []
    for train in (
        [(a, b) for a, b in zip(x.split(8), y.split(8), strict=True)],
        [{"y": b, "x": a, "name": "batch"} for a, b in zip(x.split(8), y.split(8), strict=True)],
        [{"y": b.numpy(), "x": a.numpy()} for a, b in zip(x.split(8), y.split(8), strict=True)],
    ):
        vae = conditional()
        run = fit(vae, train, train, epochs=2, accumulate=2, kl_weight=linear_warm_up(2), **QUIET)
        found.append((weights(vae), run.history[-1]["valid_loss"]))
    for each, loss in found[1:]:
        torch.testing.assert_close(each, found[0][0], rtol=1e-5, atol=1e-6)
        assert loss == pytest.approx(found[0][1], rel=1e-5)
    for train in ({"y": y, "x": x}, Items(lambda i: {"y": y[i], "x": x[i].numpy()})):
        assert math.isfinite(fit(conditional(), train, epochs=1, batch_size=8, **QUIET).history[0]["train_loss"])
    with pytest.raises(TypeError, match="a batch has 1 tensors; the programs take 2: x, y"):
        fit(conditional(), [x, y], epochs=1, **QUIET)
    with pytest.raises(TypeError, match="a batch has 1 tensors; the programs take 2: x, y"):
        fit(conditional(), x, epochs=1, **QUIET)


def test_arguments_that_may_be_left_out():
    vae = SemiSupervisedVAE(
        priors.StandardNormal(LATENT),
        likelihoods.Normal(nn.mlp(LATENT + 2, [5], PIXELS), 0.5),
        posteriors.Normal(nn.mlp(PIXELS + 2, [5], 2 * LATENT)),
        nn.mlp(PIXELS, [5], 2),
        classes=2,
    )
    for train in ((new_data(20), torch.arange(20) % 2), {"x": new_data(20), "y": torch.arange(20) % 2}):
        assert math.isfinite(fit(vae, train, epochs=1, batch_size=8, **QUIET).history[0]["train_loss"])


@pytest.mark.parametrize("make", [
    lambda x: x.astype(">f4"),
    lambda x: x.astype(">f8"),
    lambda x: np.ascontiguousarray(x[::-1])[::-1],
    lambda x: np.broadcast_to(x, x.shape),
    lambda x: np.asfortranarray(x),
], ids=["big-endian", "big-endian doubles", "backwards", "read-only", "Fortran's"])  # fmt: skip
def test_arrays_of_every_layout_have_the_values_of_the_tensor(make):
    x = torch.arange(20.0)[:, None].expand(20, PIXELS).contiguous()
    array = make(x.numpy())
    assert sorted(chain(*rows_seen(new_vae(), array))) == list(range(20))
    assert sorted(chain(*rows_seen(new_vae(), (array, np.arange(20))))) == list(range(20))
    if array.dtype.itemsize == 4:  # batches and datapoints are not cast
        assert sorted(chain(*rows_seen(new_vae(), [array[:8], array[8:]]))) == list(range(20))
        assert sorted(chain(*rows_seen(new_vae(), Items(lambda i: array[i])))) == list(range(20))


# Scales of programs


N = 40
SUBSAMPLES = {
    "subsample": (lambda x: pyro.plate("data", N, subsample=x), None),
    "under another name": (lambda x: pyro.plate("rows", N, subsample=x), None),
    "by hand": (plain, lambda x: N / len(x)),
    "bits per pixel": (plain, lambda _: 1 / (PIXELS * math.log(2))),
    "a tensor": (plain, lambda _: torch.tensor(7.0)),
    "both": (lambda x: pyro.plate("data", N, subsample=x), lambda _: 1 / N),
}
OPTIONS = {
    "plain": {},
    "recorded": {"compile": "graph"},
    "uneven": {"batch_size": 16, "lr": 1e-30},
    "in parts": {"accumulate": 2},
    "in uneven parts": {"accumulate": 3, "lr": 1e-30},
    "weighted": {"kl_weight": linear_warm_up(3, start=0.2)},
    "clipped": {"clip_norm": 0.05},
    "particles": {"loss": Trace_ELBO(3, vectorize_particles=True, max_plate_nesting=1)},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_losses_are_per_datapoint_whatever_the_scale(options):
    """Adam takes the same steps on a loss that is a multiple of another, so that all but its epsilon is the same."""
    x, valid = new_data(N), new_data(13)
    options = {"epochs": 3, "batch_size": 10, "lr": 1e-3, **QUIET, **OPTIONS[options]}
    expected = fit(Programs(plain), x, valid, **options).history
    for plate, scale in SUBSAMPLES.values():
        pyro.clear_param_store()
        history = fit(Programs(plate, scale), x, valid, **options).history
        for row, right in zip(history, expected, strict=True):
            for name in ("train_loss", "valid_loss", "valid_rate", "valid_distortion"):
                assert row[name] == pytest.approx(right[name], rel=1e-3), name


@pytest.mark.parametrize(
    "loss", [InfoVAE(20.0), InfoVAE(20.0, 0.5), FreeBits(0.3), Capacity(10.0, 2.0), BetaTC(3.0, N)]
)
def test_terms_of_other_losses_are_scaled_as_the_rest(loss):
    """All of a loss is N / batch times as large, whatever it is made of."""
    x, found = new_data(10), []
    for plate, weight in ((plain, 1), (SUBSAMPLES["subsample"][0], 10 / N)):
        pyro.clear_param_store()
        vae = Programs(plate)
        torch.manual_seed(0)
        found.append(weight * loss(vae.model, vae.guide, x).item())
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.parametrize("name", SUBSAMPLES)
def test_gradients_are_clipped_per_datapoint_whatever_the_scale(name):
    """By the same factor as those of the programs without a scale."""
    x, factors = new_data(N), []
    for plate, scale in ((plain, None), SUBSAMPLES[name]):
        moved = []
        for clip_norm in (None, 0.5):
            pyro.clear_param_store()
            vae = Programs(plate, scale)
            before = weights(vae)
            options = {"optimizer": torch.optim.SGD, "lr": 1e-4, "clip_norm": clip_norm, **QUIET}
            fit(vae, x[:10], epochs=1, batch_size=10, **options)
            moved.append((weights(vae) - before).double().norm().item())
        factors.append(moved[1] / moved[0])
    assert factors[1] == pytest.approx(factors[0], rel=1e-2)
    assert factors[0] < 0.9


def test_a_plate_that_draws_its_subsample_stands_for_the_batch():
    """``subsample_size``: of each batch of 20 the loss is estimated from 5; the mean is that of all."""
    model = Programs(plain)

    class Subsampled(Programs):
        def model(self, x):
            pyro.module("decoder", self.decoder)
            with pyro.plate("data", len(x), subsample_size=5) as index:
                z = pyro.sample("z", dist.Normal(x.new_zeros(5, LATENT), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.decoder(z), 0.7).to_event(1), obs=x[index])

        def guide(self, x):
            pyro.module("encoder", self.encoder)
            with pyro.plate("data", len(x), subsample_size=5) as index:
                loc, log_scale = self.encoder(x[index]).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    x = new_data(1).expand(40, PIXELS).contiguous()  # so that it does not matter which
    options = {"epochs": 40, "batch_size": 20, "lr": 1e-30, **QUIET}
    expected = [row["train_loss"] for row in fit(model, x, x, **options).history]
    pyro.clear_param_store()
    found = [row["train_loss"] for row in fit(Subsampled(plain), x, x, **options).history]
    error = (np.var(found) / 40 + np.var(expected) / 40) ** 0.5  # of means of 40: 5 of them is one in 10^6
    assert abs(np.mean(found) - np.mean(expected)) < 5 * error


def test_a_latent_for_all_data_counts_once():
    """Its KL is a share 1 / N of the loss of a datapoint, in training and validation."""

    class Global(Programs):
        def model(self, x):
            pyro.sample("shared", dist.Normal(0.0, 1.0))
            super().model(x)

        def guide(self, x):
            pyro.sample("shared", dist.Normal(3.0, 1.0))  # 4.5 nats from the prior
            super().guide(x)

    x = new_data(N)
    plate = SUBSAMPLES["subsample"][0]
    options = {"epochs": 1, "batch_size": 10, "lr": 1e-30, "loss": _mean_field(), **QUIET}
    without = fit(Programs(plate), x, x, **options).history[0]
    pyro.clear_param_store()
    with_it = fit(Global(plate), x, x, **options).history[0]
    noise = 4 * 0.5 / math.sqrt(N)  # other draws of z; the shared one has variance 9 in valid_rate
    assert with_it["train_loss"] - without["train_loss"] == pytest.approx(4.5 / N, abs=noise)
    assert with_it["valid_rate"] - without["valid_rate"] == pytest.approx(4.5 / N, abs=noise)


def _mean_field():
    from pyro.infer import TraceMeanField_ELBO

    return TraceMeanField_ELBO()


def test_parts_of_a_subsample_give_the_gradients_of_the_whole():
    x, found = new_data(N), []
    for accumulate in (1, 3, 4):
        pyro.clear_param_store()
        vae = Programs(SUBSAMPLES["subsample"][0])

        def loss(model, guide, x, vae=vae):  # noqa: ARG001
            scale = poutine.trace(guide).get_trace(x).nodes["z"]["scale"]  # there is no noise in what follows
            return scale * (vae.decoder(vae.encoder(x)[:, :LATENT]) - x).square().sum()

        options = {"lr": 1e-5, "optimizer": torch.optim.SGD, "accumulate": accumulate}
        run = fit(vae, x, epochs=2, batch_size=16, loss=loss, **options, **QUIET)
        found.append((weights(vae), run.history[-1]["train_loss"]))
    for each, loss in found[1:]:
        torch.testing.assert_close(each, found[0][0], rtol=1e-5, atol=1e-6)
        assert loss == pytest.approx(found[0][1], rel=1e-4)


# Streams


def test_a_schedule_goes_by_the_length_that_a_stream_had():
    x, seen = new_data(32), []

    def schedule(epoch):
        seen.append(epoch)
        return min(1.0, epoch / 3)

    fit(new_vae(), DataLoader(Stream(x), 8), epochs=3, kl_weight=schedule, **QUIET)
    assert list(dict.fromkeys(seen)) == [0.0, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75]


def test_a_stream_that_goes_on_knows_its_length(tmp_path):
    x = new_data(32)
    options = {"kl_weight": linear_warm_up(3), **QUIET}
    whole, parts = new_vae(), new_vae()
    fit(whole, DataLoader(Stream(x), 8), epochs=3, **options)
    fit(parts, DataLoader(Stream(x), 8), epochs=1, out=tmp_path, **options)
    again = new_vae()
    fit(again, DataLoader(Stream(x), 8), epochs=3, out=tmp_path, resume=True, **options)
    assert torch.equal(weights(again), weights(whole))


# The last batch


def with_batch_norm() -> VAE:
    network = torch.nn.Sequential(nn.mlp(PIXELS, [5], 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2 * LATENT))
    return new_vae(posterior=posteriors.Normal(network))


@pytest.mark.parametrize("kind", ["tensor", "tuple", "data set", "loader", "list of batches", "dictionary"])
def test_batch_normalization_and_a_last_batch_of_one(kind):
    vae = with_batch_norm()
    before = weights(vae), [buffer.clone() for buffer in vae.buffers()]
    with pytest.raises(
        ValueError, match=r"has 1 datapoint, of which batch normalization \(posterior.network.1\) cannot"
    ):
        fit(vae, KINDS[kind](new_data(17)), epochs=1, batch_size=8, **QUIET)
    assert torch.equal(weights(vae), before[0])
    assert all(torch.equal(a, b) for a, b in zip(vae.buffers(), before[1], strict=True))
    fit(vae, KINDS[kind](new_data(16)), epochs=1, batch_size=8, **QUIET)
    assert vae.posterior.network[1].num_batches_tracked == 2
    fit(vae.eval(), KINDS[kind](new_data(17)), epochs=1, batch_size=8, **QUIET)  # which takes no statistics


def test_parts_of_one_and_streams_are_told_likewise():
    with pytest.raises(ValueError, match="a part of a batch has 1 datapoint"):
        fit(with_batch_norm(), new_data(16), epochs=1, batch_size=4, accumulate=4, **QUIET)
    with pytest.raises(ValueError, match="the last batch of an epoch has 1 datapoint"):
        fit(with_batch_norm(), new_data(16), epochs=1, batch_size=1, **QUIET)
    with pytest.raises(ValueError, match=r"at step 3, has 1 datapoint, of which batch normalization"):
        fit(with_batch_norm(), DataLoader(Stream(new_data(17)), 8), epochs=1, **QUIET)


@pytest.mark.parametrize("kind", ["tensor", "tuple", "data set", "stream", "dictionary", "NumPy"])
def test_the_last_batch_can_be_dropped(kind):
    seen = rows_seen(new_vae(), KINDS[kind](new_data(17)), drop_last=True, epochs=2)
    assert [len(batch) for batch in seen] == [8, 8, 8, 8]
    run = fit(with_batch_norm(), KINDS[kind](new_data(17)), epochs=1, batch_size=8, drop_last=True, **QUIET)
    assert run.history[0]["step"] == 2


def test_what_cannot_be_dropped():
    with pytest.raises(ValueError, match="train has 7 datapoints: drop_last leaves no batch of 8"):
        fit(new_vae(), new_data(7), epochs=1, batch_size=8, drop_last=True, **QUIET)
    for train in (DataLoader(TensorDataset(new_data()), 8), [new_data()]):
        with pytest.raises(
            ValueError, match="train comes in batches, so that drop_last is a matter of what makes them"
        ):
            fit(new_vae(), train, epochs=1, drop_last=True, **QUIET)


# A pair of programs


def functions(plate=plain):
    """Programs with a network in ``pyro.module``, a parameter with a constraint, and a guide that makes its own."""
    torch.manual_seed(3)
    decoder, encoder = nn.mlp(LATENT, [5], PIXELS), nn.mlp(PIXELS, [5], LATENT)

    def model(x):
        pyro.module("decoder.of.x", decoder)
        noise = pyro.param("noise", torch.tensor(2.0), constraint=constraints.positive)
        with plate(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), noise).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        scale = pyro.param("scale", lambda: torch.full((LATENT,), 0.5), constraint=constraints.positive)
        with plate(x):
            pyro.sample("z", dist.Normal(encoder(x), scale).to_event(1))

    return model, guide


def test_a_pair_of_programs_is_trained_as_by_svi():
    x = new_data(20)
    pair = functions()
    torch.manual_seed(5)
    svi = pyro.infer.SVI(*pair, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    torch.manual_seed(7)
    losses = [svi.step(x) / 20 for _ in range(6)]
    expected = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    pyro.clear_param_store()
    pair = functions()
    states = iter([7])

    def seeded(model, guide, x):
        torch.manual_seed(next(states, int(torch.randint(2**31, ()))))
        return Trace_ELBO().differentiable_loss(model, guide, x)

    run = fit(pair, [x], epochs=6, lr=0.05, loss=seeded, compile=False, progress=False)
    assert set(dict(run.vae.named_parameters())) == {
        *(f"decoder_of_x.{i}.{each}" for i in (0, 2) for each in ("weight", "bias")),
        *(f"encoder.{i}.{each}" for i in (0, 2) for each in ("weight", "bias")),
        "noise", "scale",
    }  # fmt: skip
    found = dict(pyro.get_param_store().items())
    assert found.keys() == expected.keys()
    assert run.history[0]["train_loss"] == pytest.approx(losses[0], rel=1e-5)
    assert all(value.isfinite().all() for value in found.values())
    assert found["noise"] != 2.0
    assert found["noise"] > 0


@pytest.mark.parametrize("mode", [False, "graph"])
def test_a_pair_of_programs_learns_and_goes_on(mode, tmp_path):
    x = torch.randn(64, PIXELS, generator=torch.Generator().manual_seed(0)) * 0.3
    options = {**QUIET, "batch_size": 16, "lr": 0.05, "compile": mode}
    whole = fit(functions(), x, x, epochs=8, **options)
    assert whole.history[-1]["valid_loss"] < whole.history[0]["valid_loss"] - 0.3
    noise = pyro.param("noise").item()
    assert noise < 1.5  # the data have 0.3
    pyro.clear_param_store()
    fit(functions(), x, x, epochs=3, out=tmp_path, **options)
    pyro.clear_param_store()
    run = fit(functions(), x, x, epochs=8, out=tmp_path, resume=True, **options)
    assert torch.equal(weights(run.vae), weights(whole.vae))
    assert pyro.param("noise").item() == noise


def test_a_pair_of_a_guide_that_is_a_module():
    x = new_data(20)
    model, _ = functions(lambda _: pyro.plate("data", 20, dim=-1))
    guide = pyro.infer.autoguide.AutoNormal(model)
    run = fit((model, guide), x, epochs=60, lr=0.05, batch_size=20, **QUIET)
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    assert any("locs" in name for name, _ in run.vae.named_parameters())


def test_a_pair_of_methods_is_their_module():
    vae = new_vae()
    assert fit((vae.model, vae.guide), new_data(), epochs=1, **QUIET).vae is vae
    for pair in ((vae.model,), (vae.model, 3)):
        with pytest.raises(
            TypeError, match="vae is of type tuple; expected a module with the programs model and guide"
        ):
            fit(pair, new_data(), epochs=1, **QUIET)
    with pytest.raises(ValueError, match="the programs have no parameters to train"):
        fit((lambda x: None, lambda x: None), new_data(), epochs=1, **QUIET)  # noqa: ARG005


# SVI.epoch


@pytest.mark.parametrize(
    "kind", ["loader", "loader of a stream", "list of batches", "list of dictionaries", "collection"]
)
def test_an_epoch_of_svi_takes_batches(kind):
    x = new_data(22)
    vae, by_hand = new_vae(), new_vae()
    optimizers = [torch.optim.Adam(each.parameters(), lr=1e-2) for each in (vae, by_hand)]
    svi = SVI(vae.model, vae.guide, optimizers[0], Trace_ELBO())
    steps = SVI(by_hand.model, by_hand.guide, optimizers[1], Trace_ELBO())
    torch.manual_seed(0)
    losses = [svi.epoch(KINDS[kind](x)) for _ in range(4)]
    torch.manual_seed(0)
    expected = []
    for _ in range(4):
        if "loader" in kind:
            torch.empty((), dtype=torch.int64).random_()  # which a loader draws, for the seeds of workers
        expected.append(sum(steps.step(batch) for batch in x.split(8)))
    assert losses == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(weights(vae), weights(by_hand), rtol=1e-4, atol=1e-6)


def test_an_epoch_of_svi_takes_of_a_batch_what_the_programs_take():
    x, labels = new_data(20), torch.arange(20)
    vae = new_vae()
    svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO())
    assert math.isfinite(svi.epoch(DataLoader(TensorDataset(x, labels), 8)))
    assert math.isfinite(svi.epoch(batch for batch in x.split(8)))
    assert math.isfinite(svi.epoch(data.Batches(x, 8)))
    for batches in (x, (x, labels), {"x": x}, 3):
        with pytest.raises(TypeError, match=r"batches is of type .*; expected data.Batches or a DataLoader"):
            svi.epoch(batches)
    with pytest.raises(TypeError, match="a batch has the keys y; the programs take x"):
        svi.epoch([{"y": x}])
