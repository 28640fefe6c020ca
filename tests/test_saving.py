"""A model is saved without a run, and loaded as it was: elsewhere, after a crash, or not at all."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import parts
import pytest
import torch
from conftest import EVENT, small_vae
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_checkpoint import ATTACKS, FOREIGN, Full, _Attack, attempt, contents, damage, equal, rewrite
from test_loading import MODELS, assert_same, encoder, own_flow, own_prior

import pyro_vae
from pyro_vae import VAE, CheckpointError, fit, likelihoods, load, nn, posteriors, priors, save
from pyro_vae.saving import model_folder
from pyro_vae.saving.checkpoint import read
from pyro_vae.saving.file_names import CONFIG, MODEL

X = torch.rand(20, *EVENT, generator=torch.Generator().manual_seed(0)).bernoulli()
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def run_of_fit(folder):
    return fit(small_vae(), X, X, epochs=1, compile=False, progress=False, out=folder)


def other_vae():
    return VAE(
        priors.Laplace(3), likelihoods.Bernoulli(nn.mlp(3, [4], EVENT)), posteriors.Normal(nn.mlp(EVENT, [4], 6))
    )


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize(
    ("model", "dtype"), [(model, (torch.float64, torch.float32)[i % 2]) for i, model in enumerate(MODELS)]
)
def test_a_model_is_rebuilt_from_its_folder(model, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "encoder", encoder)
    vae = MODELS[model]().to(dtype)
    next(vae.parameters()).requires_grad_(False)
    training, state = [module.training for module in vae.modules()], torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(vae, tmp_path)
        loaded = load(tmp_path)
    assert [module.training for module in vae.modules()] == training
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in loaded.modules())
    assert_same(vae, loaded)
    assert_same(vae, load(tmp_path / MODEL))


@pytest.mark.parametrize("device", DEVICES)
def test_a_model_on_any_device_is_loaded_on_the_cpu(device, tmp_path):
    vae = small_vae().to(device)
    save(vae, tmp_path)
    assert all(each.device.type == device for each in vae.parameters())
    loaded = load(tmp_path)
    assert all(each.device.type == "cpu" for each in loaded.parameters())
    assert equal(dict(loaded.state_dict()), {name: each.cpu() for name, each in vae.state_dict().items()})


def test_values_that_are_not_finite_are_kept(tmp_path):
    vae = small_vae()
    with torch.no_grad():
        next(vae.parameters())[0] = torch.tensor([torch.nan, -torch.inf])
    save(vae, tmp_path)
    ours, theirs = (each.state_dict().values() for each in (vae, load(tmp_path)))
    assert all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(ours, theirs, strict=True))


def test_it_is_loaded_where_nobody_knows_how_it_was_made(tmp_path):
    vae = small_vae()
    save(vae, tmp_path / "model")
    program = "import sys, torch, pyro_vae; torch.manual_seed(0); print(pyro_vae.load(sys.argv[1]).sample(5).tolist())"
    result = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "model"], capture_output=True, text=True, cwd=tmp_path, timeout=300
    )
    assert (result.returncode, result.stderr) == (0, "")
    torch.manual_seed(0)
    assert json.loads(result.stdout) == vae.sample(5).tolist()


def test_saving_what_was_loaded_writes_the_same(tmp_path):
    save(small_vae(), tmp_path / "a")
    save(load(tmp_path / "a"), tmp_path / "b")
    assert equal(read(tmp_path / "a" / MODEL), read(tmp_path / "b" / MODEL))
    assert (tmp_path / "a" / CONFIG).read_bytes() == (tmp_path / "b" / CONFIG).read_bytes()


def test_the_configuration_can_be_read_by_people(tmp_path):
    save(small_vae(), tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["architectures"] == ["VAE"]
    assert config["vae"] == read(tmp_path / MODEL)[1]["vae"]
    assert config["versions"]["torch"] == torch.__version__


# Where it is written


def test_the_last_one_that_was_saved_is_there(tmp_path):
    save(small_vae(), tmp_path)
    vae = other_vae()
    save(vae, str(tmp_path))
    assert_same(load(tmp_path), vae)
    assert {path.name for path in tmp_path.iterdir()} == {MODEL, CONFIG}


def test_a_folder_is_made_also_below_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    vae = small_vae()
    save(vae, "~/models/first")
    for path in ("~/models/first", Path("~/models/first"), f"~/models/first/{MODEL}", tmp_path / "models" / "first"):
        assert_same(load(path), vae)
    run = fit(vae, X, epochs=1, compile=False, progress=False, out="~/runs/first")
    assert run.out == tmp_path / "runs" / "first"
    assert_same(load("~/runs/first"), vae)
    assert {path.name for path in tmp_path.iterdir()} == {"models", "runs"}


@pytest.mark.parametrize("left", [["last.safetensors"], ["best.safetensors"], ["run.json"], None])
def test_a_run_is_not_written_over(left, tmp_path):
    run_of_fit(tmp_path)
    for path in tmp_path.iterdir():
        if left is not None and path.name not in left:
            path.unlink()
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=f"there is a run of fit in '{tmp_path}' .*: choose another folder"):
        save(small_vae(), tmp_path)
    assert contents(tmp_path) == before


def test_a_saved_model_is_not_written_over_by_a_run(tmp_path):
    save(small_vae(), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=f"there is a {MODEL}, but no last.safetensors"):
        run_of_fit(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", [MODEL, CONFIG])
@pytest.mark.parametrize("content", [b"", b"{}", b'{"model_type": "bert"}', bytes(range(256)), None])
def test_files_of_others_are_not_written_over(name, content, tmp_path):
    if content is None:  # somebody else's model, which is whole
        save_file({"weight": torch.ones(2)}, tmp_path / name, {"format": "pt"})
    else:
        (tmp_path / name).write_bytes(content)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=f"{name}' is not of a model of pyro_vae, or is damaged"):
        save(small_vae(), tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_the_old_model_or_the_new_one_is_there_at_any_time(after, stop, tmp_path, monkeypatch):
    """Each write fails in turn, before its file is in its place or after."""
    old, new = small_vae(), other_vae()
    save(old, tmp_path)
    replace, calls = model_folder.replace, []

    def failing(path, data):
        calls.append(path.name)
        if len(calls) == after // 2 + 1:
            if after % 2:
                replace(path, data)
            raise stop
        replace(path, data)

    monkeypatch.setattr(model_folder, "replace", failing)
    monkeypatch.setattr(pyro_vae.saving.checkpoint, "replace", failing)
    with pytest.raises(type(stop)):
        save(new, tmp_path)
    assert_same(load(tmp_path), old if after == 0 else new)
    monkeypatch.undo()
    save(new, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {MODEL, CONFIG}
    assert_same(load(tmp_path), new)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    save(small_vae(), tmp_path)
    with monkeypatch.context() as patch:
        Full(patch, after=0)
        with pytest.raises(OSError, match=rf"^cannot write '{tmp_path}/{MODEL}': No space left on device$"):
            save(other_vae(), tmp_path)
    assert load(tmp_path).latent_shape == (2,)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="cannot write to the folder"):
            save(small_vae(), folder)
    assert (tmp_path / "file").read_text() == "mine"


# What is not a model


def test_what_cannot_be_saved_is_named(tmp_path):
    class Counter(torch.nn.Module):
        def get_extra_state(self):
            return 3

        def set_extra_state(self, state):
            pass

    run = fit(small_vae(), X, epochs=1, compile=False, progress=False)
    with pytest.raises(TypeError, match=r"vae is of type Run; expected a module; pass run.vae$"):
        save(run, tmp_path / "model")
    with pytest.raises(TypeError, match=r"vae is of type dict; expected a module$"):
        save({}, tmp_path / "model")
    with pytest.raises(TypeError, match="_extra_state is of type int; expected a tensor"):
        save(Counter(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", [own_prior, own_flow])
def test_parts_of_ones_own_need_the_model(model, tmp_path):
    vae = model()
    with pytest.warns(UserWarning, match=r"cannot be rebuilt from them \(prior is a .*: load\(path, vae=...\)") as said:
        save(vae, tmp_path)
    assert [each.filename for each in said] == [__file__]
    with pytest.raises(CheckpointError, match=r"cannot be rebuilt \(prior is a .*load\(path, vae=...\)"):
        load(tmp_path)
    other = model()
    assert load(tmp_path, vae=other) is other
    assert_same(vae, other)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no file or folder '{tmp_path}/none'"):
        load(tmp_path / "none")
    expected = "expected best.safetensors, last.safetensors or model.safetensors"
    with pytest.raises(FileNotFoundError, match=f"no checkpoint in the folder '{tmp_path}'; {expected}$"):
        load(tmp_path)
    for path in (None, small_vae(), 3):
        with pytest.raises(TypeError, match=r"path is of type .*; expected the path of a folder or of a file"):
            load(path)


def test_a_pickle_is_named_and_left_alone(tmp_path):
    attacked = tmp_path / "attacked"
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(pickle.dumps(_Attack(attacked)))
    with pytest.raises(FileNotFoundError, match=r"\(pytorch_model.bin may be a pickle, which is never opened\)"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match="is not a checkpoint of pyro_vae"):
        load(path)
    assert not attacked.exists()


# Damaged, or hostile


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    save(small_vae(), folder)
    return folder


@settings(max_examples=60)
@given(choice=st.data())
def test_a_damaged_file_is_refused_or_is_the_same(saved, tmp_path_factory, choice):
    data = (saved / MODEL).read_bytes()
    damaged = choice.draw(damage(len(data), int.from_bytes(data[:8], "little") + 8))(data)
    folder = tmp_path_factory.mktemp("damaged")
    (folder / MODEL).write_bytes(damaged)
    result = attempt(lambda: load(folder))
    assert isinstance(result, CheckpointError) or equal(read(folder / MODEL), read(saved / MODEL))


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_others_are_refused_and_nothing_in_them_is_executed(kind, tmp_path):
    attacked, folder = tmp_path / "attacked", tmp_path / "folder"
    folder.mkdir()
    (folder / MODEL).write_bytes(FOREIGN[kind](_Attack(attacked)))
    for path in (folder, folder / MODEL):
        with pytest.raises(CheckpointError, match=f"{MODEL} is not a checkpoint of pyro_vae, or is damaged"):
            load(path)
        with pytest.raises(CheckpointError, match=f"{MODEL} is not a checkpoint of pyro_vae, or is damaged"):
            VAE.from_pretrained(path)
    assert not attacked.exists()


@pytest.mark.parametrize("attack", ["no class", "too many features", "many transforms", "a module's module"])
def test_descriptions_that_are_attacks_are_refused(saved, attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def change(_, content):
        content["vae"]["module"] = ATTACKS[attack]

    rewrite(saved / MODEL, change, tmp_path / MODEL)
    with pytest.raises(CheckpointError, match=f"{MODEL} cannot be rebuilt by this version: ."):
        load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [MODEL]


def with_config(saved, folder, text):
    (folder / MODEL).write_bytes((saved / MODEL).read_bytes())
    (folder / CONFIG).write_text(text)


@pytest.mark.parametrize("attack", [*ATTACKS, "another number"])
def test_a_configuration_that_says_something_else_is_refused(saved, attack, tmp_path):
    config = json.loads((saved / CONFIG).read_text())
    module = config["vae"]["module"]
    if attack == "another number":
        module["arguments"]["prior"]["arguments"]["latent_dim"] += 1
    else:
        config["vae"]["module"] = ATTACKS[attack]
    with_config(saved, tmp_path, json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"{CONFIG} describes another model than {MODEL}.*or load '.*{MODEL}'"):
        load(tmp_path)
    assert_same(load(tmp_path / MODEL), load(saved))
    (tmp_path / CONFIG).unlink()
    assert_same(load(tmp_path), load(saved))


@pytest.mark.parametrize("text", ["", "{}", "[]", "3", "vae", '{"vae": ' * 2000, "[" * 100_000, "\x00"])
def test_a_configuration_that_is_none_is_refused(saved, text, tmp_path):
    with_config(saved, tmp_path, text)
    with pytest.raises(
        CheckpointError, match=f"{CONFIG} is not the configuration of a model of pyro_vae, or is damaged"
    ):
        load(tmp_path)
