"""Rules of training that hold for all inputs, each by the function that has to keep it."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace

import pyro
import pytest
import torch
from conftest import EVENT, small_vae
from pyro import distributions as dist
from pyro.infer import Trace_ELBO

from pyro_vae import fit
from pyro_vae.processes import Processes
from pyro_vae.programs.batch_arguments import BatchArguments
from pyro_vae.training.batch_of_one import has_a_part_of_one
from pyro_vae.training.data_check import DataCheck
from pyro_vae.training.fingerprint import fingerprint
from pyro_vae.training.gradient_accumulation import GradientAccumulation, _enough_of
from pyro_vae.training.not_finite import find_cause
from pyro_vae.training.optimizer_state import load_optimizer
from pyro_vae.training.progress_bar import describe_row
from pyro_vae.training.run import Run, RunProgress
from pyro_vae.training.run_folder import _read_progress
from pyro_vae.training.scales import Noted, Scale, Scales, scale_of
from pyro_vae.training.sources import Batch, as_source
from pyro_vae.training.validation import validate

CPU = torch.device("cpu")
QUIET = {"progress": False, "batch_size": 8}


def images(n: int) -> torch.Tensor:
    return torch.rand(n, *EVENT).bernoulli()


# Batches and their parts


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_a_part_of_one_is_found_by_counting(processes, parts):
    for size in range(1, 30):
        shares = [len(range(rank, size, processes)) for rank in range(processes)]
        sizes = [part for share in shares for part in GradientAccumulation(None, parts)._sizes(share)]
        assert sum(sizes) == size
        assert has_a_part_of_one([size], processes, parts) == (1 in sizes), size


def programs_of_a_subsample(num_data: int):
    """A model and guide whose loss stands for all data, whatever the batch."""

    def model(x):
        with pyro.plate("data", num_data, subsample=x):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", num_data, subsample=x):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    return model, guide


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_loss_of_a_subsample_stands_for_all_data_in_any_number_of_parts(parts):
    scales = Scales()
    model, guide = (Noted(program, scales) for program in programs_of_a_subsample(100))
    gradients = GradientAccumulation(Trace_ELBO(), parts, (), scales)
    gradients(model, guide, torch.randn(7))
    assert gradients.datapoints(7) == pytest.approx(100)


def site(scale: float, **frames: tuple[int, int]):
    """The plates of a site, given as size and full size, and its scale."""
    return [SimpleNamespace(name=name, size=size, full_size=full) for name, (size, full) in frames.items()], scale


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ([site(1.0, data=(8, 8))], Scale(8)),
        ([site(12.5, data=(8, 100))], Scale(100, is_subsample=True)),
        ([site(6.25, data=(8, 100)), site(12.5, data=(8, 100))], Scale(100, is_subsample=True)),  # a weight of the KL
        ([site(0.5, data=(8, 100)), site(0.5, data=(8, 100))], Scale(4, is_subsample=True)),  # poutine.scale
        ([site(2.0, rows=(4, 8))], Scale(8)),  # it draws its subsample, and the batch is all of the data
        ([site(1.0, words=(8, 8), rows=(8, 100))], Scale(8, is_subsample=True)),
        ([site(1.0, rows=(8, 100), words=(8, 8))], Scale(8, is_subsample=True)),
        ([site(3.0)], Scale(24)),  # without a plate
    ],
)
def test_the_scale_of_a_loss(sites, expected):
    assert scale_of(sites, 8) == expected


@pytest.mark.parametrize("where", ["a row", "a column"])
@pytest.mark.parametrize("index", [0, 7, 149])
def test_a_large_gradient_that_is_not_finite_shows_it_in_one_row_or_column(where, index):
    """The gradient of a weight is a sum of products of an output and an input, and one of these is not finite."""
    outputs, inputs = torch.randn(150) + 3, torch.randn(150) + 3
    (outputs if where == "a row" else inputs)[index] = torch.inf
    assert not all(part.isfinite().all() for part in _enough_of(outputs[:, None] * inputs))
    assert all(part.isfinite().all() for part in _enough_of(torch.randn(150, 150)))


# Data


@pytest.mark.parametrize("rows", [16, 17, 31])
def test_dropping_the_last_batch_leaves_all_full_ones(rows):
    options = {"arguments": BatchArguments(lambda x: x), "transform": None, "device": CPU, "dtype": torch.float32}
    source = as_source(images(rows), batch_size=16, seed=0, processes=Processes(CPU), drop_last=True, **options)
    assert [batch.rows for batch in source.epoch(0)] == [16]


def test_data_of_another_shape_are_refused_although_their_values_may_be():
    vae = small_vae()
    check = DataCheck(vae, (vae.model, vae.guide))
    check(Batch((torch.zeros(3, *EVENT),), 3), "batch 1")
    for x in (torch.zeros(3, 1, 4, 5), torch.zeros(3, *EVENT, dtype=torch.float64)):
        with pytest.raises((TypeError, ValueError), match=r"batch 2: x has (shape|dtype)"):
            DataCheck(vae, (vae.model, vae.guide))(Batch((x,), 3), "batch 2")
        with pytest.raises((TypeError, ValueError), match=r"batch 2: x has (shape|dtype)"):
            check(Batch((x,), 3), "batch 2")


@pytest.mark.parametrize("rows", [2, 255, 300])
def test_data_that_differ_in_a_row_have_other_fingerprints(rows):
    x = images(rows)
    for row in (0, rows // 2, rows - 1):
        other = x.clone()
        other[row] = 1 - other[row]
        assert fingerprint(other) != fingerprint(x)
    assert fingerprint(x.clone()) == fingerprint(x)


def test_nan_in_the_data_is_the_cause_unless_the_model_takes_missing_values():
    model, guide = programs_of_a_subsample(100)
    args = (torch.tensor([0.0, torch.nan]),)
    module = torch.nn.Module()
    assert find_cause(module, (model, guide), args, {}).startswith("argument 1 of the programs is nan at 1 of 2 places")
    module.check = lambda _: None
    assert "log-density of site 'x'" in find_cause(module, (model, guide), args, {})


# Runs


def test_validation_is_the_same_number_at_every_call_and_leaves_no_trace():
    vae, batches = small_vae(), [Batch((images(5),), 5)]
    before = torch.get_rng_state()
    first, second = (
        (validate(vae, (vae.model, vae.guide), batches, CPU, Processes(CPU)), torch.rand(())) for _ in range(2)
    )
    assert first[0] == second[0]
    assert first[1] != second[1]  # the noise in between is that of the user
    torch.set_rng_state(before)
    assert first[1] == torch.rand(())
    assert first[0]["loss"] == pytest.approx(first[0]["rate"] + first[0]["distortion"])


@pytest.mark.parametrize("changed", [{"patience": 9}, {"on_nan": "skip"}, {"compile": False}, {"epochs": 4}])
def test_settings_that_do_not_change_the_steps_may_change_when_a_run_is_resumed(changed, tmp_path):
    x, options = images(24), {"epochs": 2, "patience": 3, "out": tmp_path, "seed": 1, **QUIET}
    fit(small_vae(), x[:16], x[16:], **options)
    run = fit(small_vae(), x[:16], x[16:], resume=True, **{**options, "epochs": 3, **changed})
    assert len(run.history) == changed.get("epochs", 3)


def test_runs_that_start_from_weights_one_after_the_other_have_noise_of_their_own(tmp_path):
    noise: list[list[float]] = []

    def transform(x):
        noise[-1].append(float(torch.rand(())))
        return x

    for epochs in (1, 2, 3):
        noise.append([])
        fit(
            small_vae(),
            images(16),
            epochs=epochs,
            transform=transform,
            out=tmp_path,
            resume="weights",
            seed=1,
            compile=False,
            **QUIET,
        )
    drawn = [set(each) for each in noise]
    assert not drawn[0] & drawn[1]
    assert not drawn[1] & drawn[2]


def test_datapoints_per_second_are_datapoints():
    """In the first epoch, the seconds of the epoch are those of the run."""
    (row,) = fit(small_vae(), images(40), epochs=1, **QUIET).history
    assert row["datapoints_per_second"] * row["seconds"] >= 40


def test_the_loss_so_far_is_per_datapoint():
    run = Run(small_vae(), 3, progress=RunProgress(loss=20.0, rows=8, batch=2))
    assert describe_row(run) == "epoch 1/3  loss 2.50 so far"


# Files


@pytest.mark.parametrize(("epoch", "rows"), [(1, 2), (2, 1), (1, 0)])
def test_a_history_of_another_length_than_the_run_is_refused(epoch, rows):
    history = [{"epoch": i, "train_loss": 1.0, "datapoints_per_second": 1.0} for i in range(1, rows + 1)]
    with pytest.raises(ValueError, match=f"its history has {rows} epochs"):
        _read_progress(asdict(RunProgress(epoch=epoch)), history)


def test_counts_of_steps_of_another_dtype_are_refused():
    """torch casts the other tensors of an optimizer to the dtype of the parameter."""
    optimizers = [torch.optim.RMSprop([torch.nn.Parameter(torch.ones(3))]) for _ in range(2)]
    optimizers[0].param_groups[0]["params"][0].grad = torch.ones(3)
    optimizers[0].step()
    state = optimizers[0].state_dict()
    state["state"][0]["step"] = state["state"][0]["step"].long()
    with pytest.raises(ValueError, match=r"\['step'\] is not a tensor \[\] of torch.float32"):
        load_optimizer(optimizers[1], state)
