"""MLflow and Weights & Biases: what is in the stores is the history, in the run where it belongs."""

from __future__ import annotations

import csv
import os
import pickle
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EVENT, small_vae
from run_stores import InMLflow, InWandB, size
from test_logs import STEPS, finished, images, same_but_for_time, train

from pyro_vae import Interrupted
from pyro_vae.cli import main
from pyro_vae.training.logs import MLflow, WandB
from pyro_vae.training.run import Run

STORES = ["mlflow", "wandb"]
NAMES = {"train_loss": "train/loss", "valid_loss": "valid/loss", "valid_rate": "valid/rate"}
NAMES |= {"valid_distortion": "valid/distortion"}


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(params=STORES)
def store(request, tmp_path, monkeypatch):
    pytest.importorskip(request.param, reason=f"pip install 'pyro-vae[{request.param}]'")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "store"
    folder.mkdir()
    if request.param == "mlflow":
        pytest.importorskip("sqlalchemy", reason="pip install 'pyro-vae[mlflow]'")
        store = InMLflow(request.getfixturevalue("database"), folder)
    else:
        store = InWandB(folder)
    yield store
    store.end()


def check_points(logged, history):
    """Each row is there, once, with all of its columns."""
    columns = {NAMES.get(name, f"train/{name}"): name for name in history[0] if name != "step"}
    assert set(logged.points) == set(columns)
    for tag, name in columns.items():
        assert logged.points[tag] == [(row["step"], row[name]) for row in history], tag


def interrupt_after(epoch: int, number: int = signal.SIGINT):
    def interrupt(run: Run) -> None:
        if run.progress.epoch == epoch:
            os.kill(os.getpid(), number)

    return interrupt


def test_points_are_the_history_and_params_the_settings(store):
    run = train(small_vae(), store.log(params={"note": "hello"}), lr=2e-3, patience=7)
    (logged,) = store.runs()
    check_points(logged, run.history)
    assert logged.status == "FINISHED"
    expected = {"epochs": "3", "batch_size": "8", "lr": "0.002", "seed": "0", "patience": "7", "optimizer": "Adam"}
    expected |= {"prior": "StandardNormal", "likelihood": "Bernoulli", "posterior": "Normal", "note": "hello"}
    expected |= {"parameters": str(sum(parameter.numel() for parameter in run.vae.parameters()))}
    assert logged.params.items() >= expected.items()


def test_nothing_of_the_machine_is_in_the_params(store, tmp_path):
    train(small_vae(), store.log(), out=tmp_path / "run")
    (logged,) = store.runs()
    assert not [value for value in logged.params.values() if str(tmp_path) in value]


def test_the_command_line_logs_too(store, tmp_path, monkeypatch, capsys):
    is_mlflow = isinstance(store, InMLflow)
    if not is_mlflow:
        store.wandb.teardown()  # else it has the environment of an earlier test
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "store"))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 3)))
    words = [
        "train",
        tmp_path / "run",
        "--data",
        tmp_path / "x.npy",
        "--epochs",
        2,
        "--latent-dim",
        2,
        "--no-tensorboard",
    ]
    words += ["--mlflow" if is_mlflow else "--wandb"]
    assert main([*map(str, words)]) == 0
    capsys.readouterr()
    (logged,) = store.runs()
    history = list(csv.DictReader((tmp_path / "run" / "history.csv").open()))
    assert [step for step, _ in logged.points["valid/loss"]] == [int(row["step"]) for row in history]
    assert [value for _, value in logged.points["valid/loss"]] == [float(row["valid_loss"]) for row in history]
    expected = {"data": "x.npy", "latent_dim": "2", "posterior": "normal", "network_hidden": "[400]", "epochs": "2"}
    assert logged.params.items() >= expected.items()
    assert not [value for value in logged.params.values() if str(tmp_path) in value]


def test_pictures_come_every_few_epochs_and_at_the_end(store, tmp_path):
    vae, log, out = small_vae(), store.log(images(9), every=2), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(vae, log, interrupt_after(3), epochs=5, out=out)
    train(vae, log, epochs=5, out=out, resume=True)
    (logged,) = store.runs()
    assert set(logged.images) == {"samples", "reconstructions"}
    for shown in logged.images.values():
        assert [step for step, _ in shown] == [2 * STEPS, 4 * STEPS, 5 * STEPS]
        assert len({path.read_bytes() for _, path in shown}) == 3  # it learns
    assert size(logged.images["samples"][0][1]) == (1845, 960)


def test_training_ends_in_the_same_bits(store):
    ends = []
    for callbacks in ([], [store.log(images(9), every=2)]):
        torch.manual_seed(0)
        vae = small_vae()
        run = train(vae, *callbacks)
        ends.append((vae.state_dict(), same_but_for_time(run.history), torch.get_rng_state()))
    (weights, history, state), (weights_logged, history_logged, state_logged) = ends
    assert history == history_logged
    assert torch.equal(state, state_logged)
    assert all(torch.equal(weights[name], weights_logged[name]) for name in weights)


@pytest.mark.parametrize(("number", "same"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_run_that_is_resumed_continues_its_run(store, tmp_path, number, same):
    vae, out = small_vae(), tmp_path / "run"
    callback = store.log()
    with pytest.raises((Interrupted, SystemExit)):
        train(vae, interrupt_after(2, number), callback, epochs=4, out=out)
    (logged,) = store.runs()
    assert logged.status == "KILLED"
    run = train(vae, callback if same else store.log(), epochs=6, out=out, resume=True)
    (logged,) = store.runs()
    assert logged.status == "FINISHED"
    check_points(logged, run.history)


def test_what_came_after_the_checkpoint_is_not_logged_twice(store, tmp_path):
    """A run that is killed has logged epochs that are trained again."""
    vae, out = small_vae(), tmp_path / "run"

    def keep(run: Run) -> None:
        if run.progress.epoch == 3:
            shutil.copytree(out, tmp_path / "kept")

    with pytest.raises(Interrupted):
        train(vae, store.log(), keep, interrupt_after(5), epochs=6, out=out, save_every=0)
    for name in ("mlflow.json", "wandb.json"):  # these are as they were when it was killed
        if (out / name).exists():
            shutil.copy(out / name, tmp_path / "kept" / name)
    run = train(small_vae(), store.log(), epochs=6, out=tmp_path / "kept", resume=True)
    (logged,) = store.runs()
    assert [step for step, _ in logged.points["train/loss"]] == [row["step"] for row in run.history]
    assert [value for _, value in logged.points["valid/loss"]] == [row["valid_loss"] for row in run.history]


def test_rows_that_were_lost_are_logged_when_it_is_resumed(store, tmp_path):
    vae, out = small_vae(), tmp_path / "run"
    train(vae, store.log(), epochs=2, out=out)
    train(vae, epochs=3, out=out, resume=True)
    run = train(vae, store.log(), epochs=3, out=out, resume=True)  # nothing is left to train
    (logged,) = store.runs()
    check_points(logged, run.history)


def test_an_interrupt_in_the_first_epoch_is_logged_too(store, tmp_path):
    def interrupt(batch):
        if not (tmp_path / "interrupted").exists():
            (tmp_path / "interrupted").touch()
            os.kill(os.getpid(), signal.SIGINT)
        return batch

    vae, out = small_vae(), tmp_path / "run"
    with pytest.raises(Interrupted):
        train(vae, store.log(), out=out, transform=interrupt)
    run = train(vae, store.log(), out=out, transform=interrupt, resume=True)
    (logged,) = store.runs()
    assert logged.status == "FINISHED"
    check_points(logged, run.history)


def test_an_exception_ends_the_run_as_failed(store):
    def fails(run: Run) -> None:
        if run.progress.epoch == 2:
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        train(small_vae(), store.log(), fails)
    (logged,) = store.runs()
    assert logged.status == "FAILED"
    assert [step for step, _ in logged.points["train/loss"]] == [STEPS, 2 * STEPS]
    assert not store.is_active()


def test_several_calls_are_several_runs(store, tmp_path):
    callback = store.log()
    histories = [train(small_vae(), callback, epochs=epochs).history for epochs in (2, 3)]
    histories.append(train(small_vae(), callback, epochs=1, out=tmp_path / "run").history)
    logged = store.runs()
    assert len(logged) == 3
    for each, history in zip(logged, histories, strict=True):
        check_points(each, history)


def test_a_run_of_the_user_is_used_and_not_ended(store, tmp_path):
    vae, out = small_vae(), tmp_path / "run"
    store.start()
    with pytest.raises(Interrupted):
        train(vae, store.log(), interrupt_after(2), epochs=4, out=out)
    assert store.is_active()
    run = train(vae, store.log(), epochs=4, out=out, resume=True)
    assert store.is_active()
    store.end()
    (logged,) = store.runs()
    assert logged.status == "FINISHED"
    check_points(logged, run.history)


def test_a_failure_is_a_warning_and_what_is_missing_comes_later(store, monkeypatch):
    def fill(run: Run) -> None:
        if run.progress.epoch == 2:
            store.break_writes(monkeypatch)
        if run.progress.epoch == 4:
            monkeypatch.undo()

    torch.manual_seed(0)
    reference = train(small_vae(), epochs=5)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="cannot log to .*: No space left on device; training continues") as caught:
        run = train(small_vae(), fill, store.log(), epochs=5)
    # The stores, too, may warn: W&B 0.19 uses an older pydantic's names.
    ours = [each for each in caught if each.category is UserWarning]
    assert len(ours) == 2
    assert {each.filename for each in ours} == {str(Path(train.__code__.co_filename))}
    assert same_but_for_time(run.history) == same_but_for_time(reference.history)
    (logged,) = store.runs()
    check_points(logged, run.history)


def test_only_the_first_of_several_processes_logs(store, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for rank in (1, 0):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        callback, run = store.log(), finished(small_vae())
        with callback.during(run):
            callback(run)
        assert len(store.runs()) == 1 - rank


def test_it_can_be_sent_to_other_processes(store):
    callback = store.log(params={"note": "hello"})
    train(small_vae(), callback, epochs=1)
    run = train(small_vae(), pickle.loads(pickle.dumps(callback)), epochs=1)
    assert len(store.runs()) == 2
    check_points(store.runs()[-1], run.history)


@pytest.mark.parametrize("log", [MLflow, WandB])
def test_bad_arguments_are_refused_early(log):
    pytest.importorskip(log.__name__.lower(), reason=f"pip install 'pyro-vae[{log.__name__.lower()}]'")
    with pytest.raises(ValueError, match=r"images have shape \[5, 16\]; expected"):
        log(torch.zeros(5, 16))
    with pytest.raises(ValueError, match="every is 0"):
        log(torch.zeros(5, *EVENT), every=0)


@pytest.mark.parametrize("log", [MLflow, WandB])
def test_without_the_package_it_says_what_to_install(monkeypatch, log):
    name = log.__name__.lower()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install 'pyro-vae\[{name}\]'"):
        log()


def test_a_run_of_mlflow_that_is_gone_is_replaced(database, tmp_path):
    pytest.importorskip("mlflow", reason="pip install 'pyro-vae[mlflow]'")
    store, vae, out = InMLflow(database, tmp_path / "store"), small_vae(), tmp_path / "run"
    train(vae, store.log(), epochs=1, out=out)
    store.mlflow.delete_run(store.runs()[0].id)
    with pytest.warns(UserWarning, match="cannot resume the MLflow run '[0-9a-f]+': .*deleted.*; a new one is started"):
        run = train(vae, store.log(), epochs=2, out=out, resume=True)
    (logged,) = store.runs()
    check_points(logged, run.history)


def test_callbacks_end_in_reverse_order():
    seen = []

    class Callback:
        def __init__(self, name: str) -> None:
            self.name = name

        @contextmanager
        def during(self, run: Run):
            seen.append(("begin", self.name, run.progress.step))
            yield
            seen.append(("end", self.name, run.progress.step))

        def __call__(self, _: Run) -> bool:
            return True

    train(small_vae(), Callback("a"), Callback("b"))
    assert seen == [("begin", "a", 0), ("begin", "b", 0), ("end", "b", STEPS), ("end", "a", STEPS)]


@pytest.mark.parametrize("answer", [True, np.True_, np.False_, 1, None])
def test_a_callback_that_returns_true_ends_the_run(answer):
    run = train(small_vae(), lambda _: answer)
    assert len(run.history) == (1 if isinstance(answer, bool | np.bool_) and answer else 3)
