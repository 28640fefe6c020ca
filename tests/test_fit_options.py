"""What ``fit`` refuses before the first step, other settings for a run that goes on, and what is shown of it."""

from __future__ import annotations

import io
import re
from functools import partial

import pyro
import pytest
import rich.progress
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO
from rich.console import Console
from rich.live import Live
from torch.optim import lr_scheduler

from pyro_vae import SVI, VAE, CheckpointError, fit, likelihoods, load, nn, posteriors, priors
from pyro_vae.infer import recorded_step
from pyro_vae.training import progress_bar, steps

PIXELS, LATENT = 4, 2
QUIET = {"progress": False, "seed": 1}


def new_vae() -> VAE:
    torch.manual_seed(3)
    return VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Normal(nn.mlp(LATENT, [5], PIXELS), 0.5),
        posteriors.Normal(nn.mlp(PIXELS, [5], 2 * LATENT)),
    )


def new_data(rows: int = 40) -> torch.Tensor:
    return torch.randn(rows, PIXELS, generator=torch.Generator().manual_seed(0))


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])


class SearchesLines(torch.optim.SGD):
    """Computes the loss again, as LBFGS does."""

    def step(self, closure):
        return closure()


class Plateau:
    """A scheduler of nobody's class that goes by a loss."""

    def __init__(self, optimizer) -> None:
        self.optimizer, self.losses = optimizer, []

    def step(self, metrics):
        self.losses.append(metrics)

    def state_dict(self):
        return {}


# Optimizers and schedulers


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": torch.optim.LBFGS}, ValueError, "the optimizer LBFGS computes the loss again"),
        ({"optimizer": partial(torch.optim.LBFGS, max_iter=3)}, ValueError, "the optimizer LBFGS"),
        ({"optimizer": lambda p, lr: torch.optim.LBFGS(p, lr=lr)}, ValueError, "the optimizer LBFGS"),
        ({"optimizer": SearchesLines}, ValueError, "the optimizer SearchesLines computes the loss again"),
        ({"optimizer": torch.optim.SparseAdam}, ValueError, "the optimizer SparseAdam takes sparse gradients"),
        ({"optimizer": pyro.optim.Adam}, TypeError, r"optimizer is pyro.optim's Adam; .* optimizer=torch.optim.Adam"),
        ({"optimizer": pyro.optim.ClippedAdam}, TypeError, "optimizer is pyro.optim's ClippedAdam"),
        ({"optimizer": partial(pyro.optim.Adam, {})}, TypeError, "optimizer is pyro.optim's Adam"),
        ({"optimizer": pyro.optim.Adam({"lr": 1e-3})}, TypeError, "optimizer is pyro.optim's PyroOptim"),
        ({"optimizer": pyro.optim.clipped_adam.ClippedAdam}, TypeError, "optimizer is pyro.optim's ClippedAdam"),
        (
            {"optimizer": torch.optim.Adam([torch.zeros(1, requires_grad=True)])},
            TypeError,
            "optimizer is a Adam that is made already; expected a function that makes it",
        ),
        ({"optimizer": lambda p, lr: None}, TypeError, "optimizer makes a NoneType; expected an optimizer"),  # noqa: ARG005
        (
            {"optimizer": lambda p, lr: torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)},  # noqa: ARG005
            ValueError,
            "the optimizer has none of the parameters",
        ),
        (
            {"scheduler": lr_scheduler.ReduceLROnPlateau, "scheduler_every": "step"},
            ValueError,
            "the scheduler ReduceLROnPlateau needs the validation loss, .* scheduler_every='epoch'",
        ),
        ({"scheduler": Plateau, "scheduler_every": "step"}, ValueError, "the scheduler Plateau needs"),
        (
            {"scheduler": pyro.optim.ExponentialLR({"optimizer": torch.optim.SGD, "optim_args": {}, "gamma": 0.1})},
            TypeError,
            "scheduler is pyro.optim's PyroLRScheduler",
        ),
        (
            {"scheduler": lr_scheduler.StepLR(torch.optim.SGD([torch.zeros(1)], 0.1), 1)},
            TypeError,
            "scheduler is a StepLR that is made already",
        ),
        ({"scheduler": lambda optimizer: 0.1}, TypeError, "scheduler makes a float; expected one of"),  # noqa: ARG005
    ],
)
def test_what_cannot_step_is_refused_by_name(options, error, message):
    vae = new_vae()
    before = weights(vae)
    with pytest.raises(error, match=message):
        fit(vae, new_data(), epochs=1, **options, **QUIET)
    assert torch.equal(weights(vae), before)
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_svi_refuses_them_too():
    vae = new_vae()
    for optim, error, message in (
        (torch.optim.LBFGS(vae.parameters()), ValueError, "the optimizer LBFGS computes the loss again"),
        (pyro.optim.PyroOptim(torch.optim.LBFGS, {}), ValueError, "the optimizer LBFGS computes the loss again"),
        (torch.optim.Adam, TypeError, "optim is the class Adam; expected an optimizer"),
    ):
        with pytest.raises(error, match=message):
            SVI(vae.model, vae.guide, optim, Trace_ELBO())


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.NAdam])
def test_a_plateau_goes_by_the_validation_loss(kind):
    """Which falls where the loss of the epoch does not, and the other way round."""
    made = []
    make = lambda optimizer: made.append(Plateau(optimizer)) or made[-1]  # noqa: E731
    run = fit(new_vae(), new_data(), new_data(20), epochs=3, scheduler=make, optimizer=kind, **QUIET)
    assert made[0].losses == [row["valid_loss"] for row in run.history]
    run = fit(new_vae(), new_data(), epochs=3, scheduler=make, optimizer=kind, **QUIET)
    assert made[1].losses == [row["train_loss"] for row in run.history]
    plateau = partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=1e9)
    run = fit(new_vae(), new_data(), new_data(20), epochs=3, scheduler=plateau, optimizer=kind, **QUIET)
    assert [row["lr"] for row in run.history] == pytest.approx([1e-3, 1e-4, 1e-5])


# Going on with other settings


def test_a_run_goes_on_from_its_weights_with_other_settings(tmp_path):
    first = new_vae()
    fit(first, new_data(), epochs=2, out=tmp_path, lr=1e-2, batch_size=8, **QUIET)
    new = {"lr": 1e-3, "batch_size": 10, "optimizer": torch.optim.SGD, "clip_norm": 1.0, **QUIET}
    with pytest.raises(CheckpointError, match=r'batch_size is 8 there and 10 here; .* or resume="weights" to start'):
        fit(new_vae(), new_data(), epochs=4, out=tmp_path, resume=True, **new)
    second, rows = new_vae(), []

    def watch(optimizer):
        rows.append(weights(second))
        return lr_scheduler.StepLR(optimizer, 100)

    run = fit(second, new_data(60), epochs=4, out=tmp_path, resume="weights", scheduler=watch, **new)
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4]
    assert [row["step"] for row in run.history] == [5, 10, 16, 22]  # batches of 10 of the new data
    assert [row["lr"] for row in run.history] == [1e-2, 1e-2, 1e-3, 1e-3]
    again = fit(new_vae(), new_data(60), epochs=5, out=tmp_path, resume=True, scheduler=watch, **new)  # it is this now
    assert [row["step"] for row in again.history] == [5, 10, 16, 22, 28]
    assert '"lr": 0.001' in (tmp_path / "run.json").read_text()
    assert torch.equal(weights(load(tmp_path)), weights(again.vae))


def test_it_begins_with_the_weights_and_with_noise_of_its_own(tmp_path):
    seen = []

    def loss(model, guide, x):
        seen.append((weights(vae), float(torch.rand(())), x[:, 0].tolist()))
        return Trace_ELBO().differentiable_loss(model, guide, x)

    vae = first = new_vae()
    fit(first, new_data(), epochs=2, out=tmp_path, batch_size=20, loss=loss, compile=False, **QUIET)
    vae = new_vae()
    fit(
        vae,
        new_data(),
        epochs=3,
        out=tmp_path,
        batch_size=20,
        lr=1e-2,
        loss=loss,
        compile=False,
        resume="weights",
        **QUIET,
    )
    assert torch.equal(seen[4][0], weights(first))
    assert seen[4][1:] not in [each[1:] for each in seen[:4]]
    assert seen[4][1] not in [each[1] for each in seen[:4]]


def test_patience_begins_anew_and_the_best_is_kept(tmp_path):
    options = {"epochs": 60, "out": tmp_path, "patience": 1, **QUIET}
    first = fit(new_vae(), new_data(), new_data(20), lr=0.3, **options)  # which is far too large
    assert len(first.history) < 60
    run = fit(new_vae(), new_data(), new_data(20), lr=1e-9, resume="weights", **options)
    assert len(run.history) == len(first.history) + 1  # no better, with next to the weights of the last epoch
    assert run.best_epoch == first.best_epoch
    other = fit(new_vae(), new_data(), new_data(21), lr=1e-9, resume="weights", **options)
    assert other.best_epoch > len(run.history)  # losses on other data do not compare


def test_weights_of_another_architecture_are_no_weights(tmp_path):
    fit(new_vae(), new_data(), epochs=1, out=tmp_path, **QUIET)
    other = VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Normal(nn.mlp(LATENT, [6], PIXELS), 0.5),
        posteriors.Normal(nn.mlp(PIXELS, [5], 2 * LATENT)),
    )
    with pytest.raises(CheckpointError, match="is of another architecture"):
        fit(other, new_data(), epochs=2, out=tmp_path, resume="weights", **QUIET)
    with pytest.raises(ValueError, match="resume is 'best'; expected True, False or 'weights'"):
        fit(new_vae(), new_data(), epochs=2, out=tmp_path, resume="best", **QUIET)


# What is shown


def test_a_line_for_each_epoch_where_nobody_looks(capsys):
    run = fit(new_vae(), new_data(), new_data(20), epochs=3, seed=1)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3
    for i, (line, row) in enumerate(zip(lines, run.history, strict=True), start=1):
        assert line.startswith(f"epoch {i}/3  loss {row['train_loss']:.2f}  valid {row['valid_loss']:.2f}")
    fit(new_vae(), new_data(), epochs=3, **QUIET)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_without_widgets_gets_lines_too(monkeypatch, capsys):
    console = Console(file=io.StringIO())
    console.is_jupyter = True
    monkeypatch.setattr(progress_bar, "Console", lambda **_: console)
    monkeypatch.setattr(progress_bar, "find_spec", lambda _: None)
    fit(new_vae(), new_data(), epochs=2, seed=1)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_run_that_goes_on_shows_the_epochs_that_are_new(tmp_path, capsys):
    fit(new_vae(), new_data(), epochs=2, out=tmp_path, **QUIET)
    fit(new_vae(), new_data(), epochs=3, out=tmp_path, resume=True, seed=1)
    assert [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()] == ["epoch 3/3"]


def test_progress_may_wrap_the_epochs(tmp_path, capsys):
    """Those that are left; patience and callbacks may end the run before them."""
    seen = []

    def wrap(epochs):
        seen.append(list(epochs))
        for epoch in epochs:
            seen.append(epoch)
            yield epoch

    quiet = {"out": tmp_path, "seed": 1, "progress": wrap}
    fit(new_vae(), new_data(), epochs=2, **quiet)
    run = fit(new_vae(), new_data(), epochs=6, resume=True, callbacks=[lambda run: run.progress.epoch == 4], **quiet)
    assert len(run.history) == 4
    assert seen == [[0, 1], 0, 1, [2, 3, 4, 5], 2, 3]
    assert not capsys.readouterr().err


def test_a_run_that_is_done_has_no_epochs_left(tmp_path):
    seen = []
    options = {"epochs": 2, "out": tmp_path, "seed": 1}
    fit(new_vae(), new_data(), progress=iter, **options)
    fit(new_vae(), new_data(), resume=True, progress=lambda epochs: seen.extend(epochs) or epochs, **options)
    assert seen == []


def test_progress_is_a_flag_or_a_function():
    with pytest.raises(TypeError, match="progress is 'yes'; expected True, False or a function"):
        fit(new_vae(), new_data(), epochs=1, progress="yes")


@pytest.mark.parametrize("where", ["terminal", "notebook"])
def test_the_bar_has_a_loss_after_the_first_step(where, monkeypatch):
    """And in a notebook the last line stays."""
    file, shown = io.StringIO(), []
    console = Console(file=file, force_terminal=True, width=200)
    console.is_jupyter = False
    monkeypatch.setattr(progress_bar, "Console", lambda **_: console)

    class Bar(rich.progress.Progress):
        def __init__(self, *columns, transient, **options) -> None:
            assert transient == (where == "terminal")
            super().__init__(*columns, transient=transient, **options)

        def update(self, task, **fields) -> None:
            shown.append(fields["description"])
            super().update(task, **fields)

    monkeypatch.setattr(rich.progress, "Progress", Bar)
    if where == "notebook":
        monkeypatch.setattr(console, "is_jupyter", True)
        monkeypatch.setattr(progress_bar, "find_spec", lambda _: True)
        monkeypatch.setattr(Live, "refresh", lambda _: None)  # without a notebook nothing can be shown in one
    run = fit(new_vae(), new_data(), epochs=2, batch_size=10, seed=1)
    assert re.fullmatch(r"epoch 1/2  loss \d+\.\d\d so far", shown[0])
    assert shown[-1] == progress_bar.describe_row(run)
    assert f"loss {run.history[-1]['train_loss']:.2f}" in shown[-1]


def test_a_run_from_before_there_was_drop_last_goes_on(tmp_path):
    """Its settings lack the newer argument: that is its default, and another value is another run."""
    fit(new_vae(), new_data(), epochs=1, out=tmp_path, **QUIET)
    assert "drop_last" not in "".join(path.read_text() for path in tmp_path.glob("*.json"))
    run = fit(new_vae(), new_data(), epochs=2, out=tmp_path, resume=True, **QUIET)
    assert len(run.history) == 2
    with pytest.raises(CheckpointError, match="drop_last"):
        fit(new_vae(), new_data(), epochs=3, out=tmp_path, resume=True, drop_last=True, **QUIET)
    fit(new_vae(), new_data(), epochs=1, batch_size=10, out=tmp_path / "other", drop_last=True, **QUIET)
    with pytest.raises(CheckpointError, match="drop_last is True there and the default here"):
        fit(new_vae(), new_data(), epochs=3, batch_size=10, out=tmp_path / "other", resume=True, **QUIET)


def test_an_epoch_that_is_as_good_as_the_best_is_not_better():
    """Programs without noise, whose parameter hardly moves: every epoch has the same loss."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(1.0)), 1.0), obs=x)

    def guide(x):
        pass

    x = torch.randn(20)
    run = fit((model, guide), x, x, epochs=9, batch_size=20, lr=1e-30, patience=2, compile=False, **QUIET)
    assert len({row["valid_loss"] for row in run.history}) == 1
    assert (run.progress.best_epoch, len(run.history)) == (1, 3)


@pytest.mark.parametrize(("seconds", "pays"), [(1e9, False), (0.0, True)])
def test_auto_compiles_where_the_steps_ahead_pay_for_it(monkeypatch, seconds, pays):
    compiled = []
    monkeypatch.setattr(recorded_step, "inductor", lambda graph, *_: compiled.append(graph) or graph)
    monkeypatch.setattr(steps, "_SECONDS_TO_COMPILE", seconds)
    fit(new_vae(), new_data(), epochs=2, batch_size=10, **QUIET)
    assert len(compiled) == pays
