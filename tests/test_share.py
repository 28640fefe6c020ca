"""``pyro-vae share``: a folder for others, with what the run knows and nothing that is private."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from test_checkpoint import contents
from test_loading import assert_same
from test_pretrained import Hub, read_card

from pyro_vae import fit, load, save
from pyro_vae.cli import main

SMALL = ["--epochs", "1", "--network.hidden", "4", "--latent-dim", "2", "--compile", "none", "--no-tensorboard"]


def call(capsys, *words):
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


def error(capsys, *words):
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the command on images, evaluated, with pictures."""
    folder = tmp_path_factory.mktemp("private")
    images = np.random.default_rng(0).integers(0, 2, (60, 1, 4, 4), dtype=np.uint8) * 255
    np.save(folder / "digits.npy", images)
    assert main(["train", str(folder / "run"), "--data", str(folder / "digits.npy"), "--seed", "3", *SMALL]) == 0
    assert main(["evaluate", str(folder / "run"), "--limit", "5"]) == 0
    return folder / "run"


def test_a_run_is_shared(run, tmp_path, capsys):
    said = call(capsys, "share", run, "--out", tmp_path / "shared", "--license", "mit")
    shared = tmp_path / "shared"
    files = {"README.md", "command.json", "config.json", "model.safetensors"}
    pictures = {"curves.png", "reconstructions.png", "samples.png"}
    assert {path.name for path in shared.iterdir()} == files | pictures
    assert all(name in said for name in files | pictures)
    assert_same(load(shared), load(run))
    head, text = read_card(shared)
    found = json.loads((run / "evidence.json").read_text())
    assert head["license"] == "mit"
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == found["log_prob"]
    assert "| seed | 3 |" in text
    assert "5 (test)" in text
    assert "## Data\n\ndigits.npy\n" in text
    assert all(f"](<{name}>)" in text for name in pictures)


def test_nothing_private_is_shared(run, tmp_path, capsys):
    call(capsys, "share", run, "--out", tmp_path / "shared")
    for name, content in contents(tmp_path / "shared").items():
        assert str(run.parent).encode() not in content, name
        assert b"training:" not in content, name


def test_the_other_commands_take_it(run, tmp_path, capsys):
    shared, data = tmp_path / "shared", run.parent / "digits.npy"
    call(capsys, "share", run, "--out", shared)
    assert "parameters" in call(capsys, "info", shared)
    call(capsys, "evaluate", shared, "--data", data, "--limit", "5")
    ours, theirs = (json.loads((folder / "evidence.json").read_text()) for folder in (run, shared))
    assert ours["log_prob"] == theirs["log_prob"]
    call(capsys, "sample", shared, "--count", "3", "--picture", tmp_path / "samples.png")
    call(capsys, "encode", shared, "--data", data)
    call(capsys, "share", shared, "--out", tmp_path / "again")
    assert_same(load(tmp_path / "again"), load(run))


def test_a_table_keeps_its_columns(tmp_path, capsys):
    frame = pd.DataFrame({"length": np.random.default_rng(0).normal(size=60), "kind": ["a", "b", "c"] * 20})
    frame.to_csv(tmp_path / "table.csv", index=False)
    call(capsys, "train", tmp_path / "run", "--data", tmp_path / "table.csv", *SMALL)
    call(capsys, "share", tmp_path / "run", "--out", tmp_path / "shared")
    for folder in ("run", "shared"):
        call(capsys, "encode", tmp_path / folder, "--data", tmp_path / "table.csv", "--out", tmp_path / f"{folder}.csv")
    assert (tmp_path / "run.csv").read_bytes() == (tmp_path / "shared.csv").read_bytes()
    assert "table.csv" in (tmp_path / "shared" / "README.md").read_text()


def test_a_run_of_fit_and_a_saved_model_are_shared(vae, x, tmp_path, capsys):
    fit(vae, x, epochs=1, lr=0.25, compile=False, progress=False, out=tmp_path / "run")
    call(capsys, "share", tmp_path / "run", "--out", tmp_path / "a", "--dataset", "Noise")
    assert "| lr | 0.25 |" in (tmp_path / "a" / "README.md").read_text()
    assert "## Data\n\nNoise\n" in (tmp_path / "a" / "README.md").read_text()
    save(vae, tmp_path / "model")
    call(capsys, "share", tmp_path / "model", "--out", tmp_path / "b")
    assert_same(load(tmp_path / "a"), load(tmp_path / "b"))
    assert "likelihood (Bernoulli)" in call(capsys, "info", tmp_path / "model")


def test_a_run_is_uploaded(run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    hub = Hub(tmp_path / "hub", monkeypatch)
    said = call(capsys, "share", run, "--push-to", "me/digits", "--private", "--out", tmp_path / "shared")
    assert "uploaded https://huggingface.co/me/digits/commit/1" in said
    assert hub.calls["create_repo"]["private"] is True
    there = contents(hub.folder / "me" / "digits")
    assert there.keys() == contents(tmp_path / "shared").keys()
    assert b'from_pretrained("me/digits")' in there["README.md"]
    assert_same(load(hub.folder / "me" / "digits"), load(run))


def test_what_cannot_be_shared_is_said_in_a_line(run, tmp_path, capsys):
    assert "expected --out FOLDER, or --push-to USER/NAME" in error(capsys, "share", run)
    assert "there is a run of fit in" in error(capsys, "share", run, "--out", run)
    assert "there is no file or folder" in error(capsys, "share", tmp_path / "none", "--out", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_best_weights_are_shared(vae, tmp_path, capsys):
    zeros, ones = torch.zeros(20, *vae.event_shape), torch.ones(20, *vae.event_shape)
    run = fit(vae, zeros, ones, epochs=3, lr=0.1, seed=0, compile=False, progress=False, out=tmp_path / "run")
    assert run.best_epoch == 1
    call(capsys, "share", tmp_path / "run", "--out", tmp_path / "shared")
    assert_same(load(tmp_path / "shared"), load(tmp_path / "run" / "best.safetensors"))
