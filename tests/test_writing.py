"""Whatever is computed is not lost since a disk is full: every place that writes a file, tried with a full one."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_vae

import pyro_vae
from pyro_vae import Interrupted, fit, plots
from pyro_vae.cli import main
from pyro_vae.plots import new_figure
from pyro_vae.system import files

X = (torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
SETTINGS = {"batch_size": 5, "compile": False, "progress": False, "save_every": 1000.0}


def full(monkeypatch):
    def fsync(descriptor):  # noqa: ARG001
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)


def fills_up_after(epochs, monkeypatch):
    """A callback after which the disk is full."""

    def callback(run):
        if run.progress.epoch == epochs:
            full(monkeypatch)

    return callback


@pytest.mark.parametrize("patience", [None, 5])
def test_a_run_that_is_done_is_returned_though_its_last_save_fails(tmp_path, monkeypatch, patience):
    torch.manual_seed(0)
    expected = fit(small_vae(), X, X[:10], epochs=3, seed=1, patience=patience, **SETTINGS)
    torch.manual_seed(0)
    callbacks = [fills_up_after(2, monkeypatch)]
    with pytest.warns(
        UserWarning, match=rf"^cannot write '{tmp_path}/last.safetensors': No space left .*the run is done"
    ):
        run = fit(
            small_vae(), X, X[:10], epochs=3, seed=1, patience=patience, out=tmp_path, callbacks=callbacks, **SETTINGS
        )
    assert [row["train_loss"] for row in run.history] == [row["train_loss"] for row in expected.history]
    for name, tensor in expected.vae.state_dict().items():
        assert torch.equal(run.vae.state_dict()[name], tensor)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_run_that_ends_early_is_returned_too(tmp_path, monkeypatch):
    def stop(run):  # noqa: ARG001
        full(monkeypatch)
        return True

    with pytest.warns(UserWarning, match="the run is done, but how it ended is not kept"):
        run = fit(small_vae(), X, epochs=3, out=tmp_path, callbacks=[stop], **SETTINGS)
    assert len(run.history) == 1


def test_ctrl_c_has_the_run_though_it_cannot_be_saved(tmp_path, monkeypatch):
    def interrupt(run):  # noqa: ARG001
        full(monkeypatch)
        os.kill(os.getpid(), 2)

    with pytest.raises(Interrupted, match=r"since the last save is not kept: cannot write .*No space left") as caught:
        fit(small_vae(), X, epochs=3, out=tmp_path, callbacks=[interrupt], **SETTINGS)
    assert len(caught.value.result.history) == 1


# Files of the command, and pictures


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the command, and its data."""
    folder = tmp_path_factory.mktemp("run")
    np.save(folder / "x.npy", (X.repeat(3, 1, 1, 1).numpy() * 255).astype(np.uint8))
    words = ["--epochs", "1", "--network.hidden", "4", "--latent-dim", "2", "--pictures-every", "0", "--no-tensorboard"]
    assert main(["train", str(folder / "run"), "--data", str(folder / "x.npy"), *words]) == 0
    return folder / "run"


COMMANDS = {
    "sample": ["--count", "3", "--picture", "OUT/samples.png"],
    "sample, to .npy": ["--count", "3", "--picture", "OUT/s.png", "--draws", "OUT/draws.npy"],
    "sample, to .safetensors": ["--count", "3", "--picture", "OUT/s.png", "--draws", "OUT/draws.safetensors"],
    "plot": ["--out", "OUT"],
    "evaluate": ["--limit", "3"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_files_of_the_command_are_whole_or_not_there(name, run, tmp_path, monkeypatch, capsys):
    words = [name.split(",")[0], str(run), *(word.replace("OUT", str(tmp_path)) for word in COMMANDS[name])]
    full(monkeypatch)
    before = {path.name for path in run.iterdir()}
    assert main(words) == 2
    said = capsys.readouterr()
    assert "No space left on device" in said.err.splitlines()[-1]
    assert said.err.splitlines()[-1].startswith("pyro-vae: error: cannot write '")
    assert list(tmp_path.iterdir()) == []
    assert {path.name for path in run.iterdir()} == before
    assert ("log p(x)" in said.out) == (name == "evaluate")  # what took its time is shown


def test_a_command_that_cannot_be_noted_trains_nothing(tmp_path, run, monkeypatch, capsys):
    full(monkeypatch)
    assert main(["train", str(tmp_path / "run"), "--data", str(run.parent / "x.npy")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("old", [None, b"old"])
def test_an_animation_that_does_not_fit_leaves_what_was_there(tmp_path, old):
    path = tmp_path / "film.gif"
    if old is not None:
        path.write_bytes(old)
    figures = [new_figure(figsize=(2, 2)) for _ in range(3)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*film.gif"):
            plots.write_gif(figures, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([] if old is None else [old])


def test_nothing_in_the_package_writes_a_file_by_other_means():
    """Those that may: the atomic write, the lock, a pipe between processes, TensorBoard's own files, pictures of a run."""
    may = {"system/files.py", "system/lock.py", "processes.py", "training/logs/pictures.py"}
    writing = (
        'open("w',
        ".write_text(",
        ".write_bytes(",
        "save_file(",
        "np.save(self",
        " torch.save(",
        ".savefig(path,",
    )
    package = Path(pyro_vae.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(words in path.read_text() for words in writing)
    }
    assert found - may == set()
