"""The command, as a user types it, at a small size."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from matplotlib.image import imread
from new_process import start
from pyro.infer import TraceMeanField_ELBO

import pyro_vae
from pyro_vae import HierarchicalVAE, TopDown, evidence, fit, likelihoods, load, nn, posteriors, priors
from pyro_vae.cli import main
from pyro_vae.cli.architecture import DEFAULTS, TABLES
from pyro_vae.cli.command_line import _parse
from pyro_vae.cli.fitting import Fitting
from pyro_vae.data import binarize
from pyro_vae.data.from_file import as_splits, read_arrays
from pyro_vae.infer.losses import ELBO, IWAE, DReG, StickingTheLanding
from pyro_vae.weights import log_weights

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
SIZE = (1, 8, 8)
# Small parts, by name: a part without a row here has small defaults.
SMALL = {
    "mixture": ["--prior.components", "3"],
    "vamp": ["--prior.components", "5"],
    "flow": ["--prior.transforms", "1", "--prior.hidden", "8"],
    "low-rank": ["--posterior.rank", "1"],
    "iaf": ["--posterior.transforms", "1", "--posterior.hidden", "8", "--posterior.context", "4"],
    "spline": ["--posterior.transforms", "1", "--posterior.hidden", "8", "--posterior.context", "4"],
    "mlp": ["--network.hidden", "16"],
    "gated-mlp": ["--network.hidden", "16", "16"],
    "convolutional": ["--network.channels", "4", "8"],
}


def read_splits(path):
    return as_splits(path, read_arrays(path))


# What is said of data before anything is done with them.
SEEN = r"(\d+ .*\n\S+ likelihood.*; change with --likelihood and --network\n)?"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Grey images that are alike; those for validation and test are the same."""
    levels = torch.linspace(0, 200, 64).reshape(SIZE) + 20 * torch.rand(60, *SIZE)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    held_out = levels[40:].byte().numpy()
    np.savez(path, train=levels[:40].byte().numpy(), valid=held_out, test=held_out, test_labels=np.arange(20) % 3)
    return path


def options(file: Path, *more: object, **names: str) -> list[str]:
    """What to train on these data, with small parts, for two epochs of three steps."""
    chosen = {**DEFAULTS, **names}
    parts = [word for kind, name in chosen.items() for word in (f"--{kind}", name, *SMALL.get(name, []))]
    fixed = ["--data", file, "--latent-dim", 2, "--epochs", 2, "--batch-size", 16, "--compile", "none"]
    return [str(word) for word in (*fixed, *parts, *more)]


def run(capsys, *words: object) -> str:
    """What a command prints that has no errors."""
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


def error(capsys, *words: object) -> str:
    """The line that a command ends with that cannot be done."""
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert status == 2
    assert re.fullmatch(SEEN, out)
    (line,) = err.splitlines()
    assert line.startswith("pyro-vae: error: ")
    assert len(line) > 30
    return line


def command(*words: object) -> None:
    """In a process of its own, as ``python -m pyro_vae``."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent of such processes ignores it
    sys.exit(main([str(word) for word in words]))


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "made" / "here"
    assert main(["train", str(folder), *options(file)]) == 0
    return folder


# A run, from the first command to the last


def test_a_run_is_kept_in_its_folder(trained):
    names = {path.name for path in trained.iterdir()}
    assert names >= {"command.json", "run.json", "history.csv", "last.safetensors", "best.safetensors", "tensorboard"}
    assert names >= {"samples.png", "reconstructions.png", "curves.png"}
    command = json.loads((trained / "command.json").read_text())
    assert command["options"]["binarize"] == "dynamic"  # as it was decided
    assert command["options"]["network.hidden"] == [16]
    assert command["versions"]["torch"] == torch.__version__


def test_evaluate_says_what_the_library_says(trained, file, capsys):
    out = run(capsys, "evaluate", trained, "--seed", 3, "--certify", 5)
    found = json.loads((trained / "evidence.json").read_text())
    vae, x = load(trained), binarize.fixed(read_splits(file).test)
    torch.manual_seed(3)
    expected = evidence.estimate(vae.model, vae.guide, x, certify=5)
    assert expected.summary().splitlines()[0] in out
    assert expected.certificate.summary() in out
    assert found["log_prob"] == pytest.approx(expected.mean, abs=1e-9)
    assert found["log_prob_error"] == pytest.approx(expected.mean_error, abs=1e-9)
    assert found["log_prob_std_error"] == pytest.approx(expected.mean_std_error, abs=1e-9)
    assert found["log_prob_population_std_error"] == pytest.approx(expected.population_std_error, abs=1e-9)
    assert found["certificate_gap"] == pytest.approx(expected.certificate.gap, abs=1e-9)
    assert found["settled"] == 1
    assert sum(row["settled"] for row in found["methods"].values()) == len(x)
    assert found["datapoints"] == len(x)
    assert found["elbos_agree"] is True
    assert len(found["elbo_estimates"]) == 4


def test_evaluate_takes_a_tolerance_and_a_budget_and_goes_on(trained, tmp_path, capsys):
    words = ["evaluate", trained, "--limit", 5, "--keep", tmp_path / "kept"]
    run(capsys, *words, "--tolerance", 0.5, "--budget", 1000)
    first = json.loads((trained / "evidence.json").read_text())
    run(capsys, *words, "--tolerance", 0.5)
    assert json.loads((trained / "evidence.json").read_text())["log_prob"] == first["log_prob"]
    assert "tolerance is 0.5 there and 0.05 here" in error(capsys, *words)
    assert "tolerance is -1.0" in error(capsys, "evaluate", trained, "--tolerance", -1)


def test_evaluate_takes_other_data_and_a_part_of_them(trained, tmp_path, capsys):
    run(capsys, "evaluate", trained / "last.safetensors", "--split", "train", "--limit", 7)
    assert json.loads((trained / "evidence.json").read_text())["datapoints"] == 7
    np.save(tmp_path / "other.npy", np.zeros((30, *SIZE), dtype=np.float32))
    run(capsys, "evaluate", trained, "--data", tmp_path / "other.npy")
    assert json.loads((trained / "evidence.json").read_text())["datapoints"] == 3


def test_evaluate_takes_datapoints_that_are_evenly_spaced(trained, tmp_path, capsys, monkeypatch):
    """The first ones of a test set may be of one kind."""
    np.save(tmp_path / "other.npy", np.random.default_rng(0).integers(0, 2, (30, *SIZE)).astype(np.float32))
    seen, estimate = [], evidence.estimate
    monkeypatch.setattr(
        evidence, "estimate", lambda *args, **options: seen.append(args[2]) or estimate(*args, **options)
    )
    for words in ([], ["--limit", 3], ["--limit", 10_000]):
        run(capsys, "evaluate", trained, "--data", tmp_path / "other.npy", "--split", "train", *words)
    every, some, again = seen
    n = len(every)
    assert n > 6
    assert torch.equal(some, every[[0, n // 3, 2 * n // 3]])
    assert torch.equal(again, every)


def test_sample_draws_what_the_seed_says(trained, tmp_path, capsys):
    drawn = []
    for seed in (0, 0, 1):
        run(capsys, "sample", trained, "--count", 12, "--seed", seed, "--draws", tmp_path / "x.npy")
        drawn.append(torch.from_numpy(np.load(tmp_path / "x.npy")))
    assert drawn[0].shape == (12, *SIZE)
    assert drawn[0].unique().tolist() == [0, 1]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    picture = tmp_path / "new" / "picture.png"
    run(capsys, "sample", trained, "--count", 12, "--draws", tmp_path / "x.safetensors", "--picture", picture)
    tensors = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert torch.equal(tensors["x"], drawn[0])
    torch.testing.assert_close(tensors["mean"], load(trained).likelihood(tensors["z"]).mean)
    assert imread(picture).std() > 0


def test_plot_draws_all_there_is_to_draw(trained, tmp_path, capsys):
    out = run(capsys, "plot", trained, "--out", tmp_path)
    names = {"samples", "reconstructions", "curves", "codes", "manifold"}
    assert {path.stem for path in tmp_path.iterdir()} == names
    for name in names:
        assert imread(tmp_path / f"{name}.png").std() > 0
        assert f"{name}.png" in out


def test_other_models_are_sampled_and_drawn(file, tmp_path, capsys):
    """Their folder has no command: it was written by ``fit``."""
    vae = HierarchicalVAE(
        priors.StandardNormal(2),
        [posteriors.Normal(nn.mlp(2, [4], 6))],
        likelihoods.Bernoulli(nn.mlp(3, [4], SIZE)),
        TopDown([nn.mlp(SIZE, [], 4), nn.mlp(4, [], 4)], [posteriors.Normal(nn.mlp(4, [], n)) for n in (6, 4)]),
    )
    fit(vae, vae.sample(5), epochs=1, compile=False, progress=False, out=tmp_path)
    run(capsys, "sample", tmp_path, "--count", 1003, "--draws", tmp_path / "x.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert {name: list(each.shape) for name, each in tensors.items()} == {
        "z1": [1003, 3], "z2": [1003, 2], "x": [1003, *SIZE], "mean": [1003, *SIZE],
    }  # fmt: skip
    torch.testing.assert_close(tensors["mean"], vae.likelihood(tensors["z1"]).mean)
    run(capsys, "plot", tmp_path, "--data", file, "--binarize", "fixed", "--out", tmp_path / "pictures")
    names = {path.stem for path in (tmp_path / "pictures").iterdir()}
    assert names == {"samples", "reconstructions", "codes_z2", "curves"}


def test_info_says_what_is_there(trained, capsys):
    run(capsys, "evaluate", trained)
    out = run(capsys, "info", trained)
    vae, (*_, last) = load(trained), csv.DictReader((trained / "history.csv").open())
    assert f"{sum(parameter.numel() for parameter in vae.parameters()):,}" in out
    for word in (
        "prior (StandardNormal)",
        f"{float(last['valid_loss']):.6g}",
        torch.__version__,
        "log_prob",
        "network",
    ):
        assert word in out


# Parts


# Parts for data that are not grey images: test_cli_data.py trains them.
OTHER_DATA = {
    "categorical", "columns", "heterogeneous-negative-binomial", "negative-binomial", "poisson", "zero-inflated",
    "series", "recurrent", "hyperspherical", "projected-normal",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table if name not in OTHER_DATA]
)
def test_every_part_is_trained_and_loaded_back(file, tmp_path, capsys, kind, name):
    """What is loaded has the ELBO that was noted when it was trained, within six standard errors of that one draw."""
    out = run(capsys, "train", tmp_path, *options(file, "--pictures-every", 0, "--no-tensorboard", **{kind: name}))
    assert "epoch 2/2" in out
    vae = load(tmp_path / "last.safetensors")
    *_, row = csv.DictReader((tmp_path / "history.csv").open())
    x = read_splits(file).valid
    is_binary = kind != "likelihood" or name == "bernoulli"
    with torch.no_grad():
        draws = log_weights(vae.model, vae.guide, binarize.fixed(x) if is_binary else x, 500).double()
    std_error = draws.var(0).sum().sqrt() / len(x)
    assert abs(draws.mean() + float(row["valid_loss"])) < 6 * std_error + 1e-4


def test_pseudo_inputs_are_training_data(file, tmp_path, capsys):
    words = options(file, "--lr", 1e-12, "--pictures-every", 0, "--no-tensorboard", prior="vamp")
    run(capsys, "train", tmp_path, *words)
    differences = load(tmp_path).prior.pseudo_inputs.unsqueeze(1) - read_splits(file).train
    assert differences.flatten(2).abs().amax(2).amin(1).max() < 1e-6


def test_the_help_lists_names_and_the_options_of_those_that_are_chosen(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--prior=vamp", "--posterior", "iaf", "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for table in TABLES.values():
        assert f"{{{','.join(table)}}}" in re.sub(r"[\s│]+", "", out)
    for word in ("--prior.components INT", "(default: 500)", "--posterior.context", "--network.hidden", "--kl-warmup"):
        assert word in out
    assert "--prior.transforms" not in out


# Training


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pyro-vae {pyro_vae.__version__}\n"


def test_losses_are_those_asked_for(file, tmp_path, capsys):
    for name, kind in (("iwae", IWAE), ("dreg", DReG), ("sticking-the-landing", StickingTheLanding), ("trace", ELBO)):
        loss = Fitting(loss=name, particles=3).arguments()["loss"]
        assert type(loss) is kind
        assert loss.num_particles == 3
    loss = Fitting(particles=3, beta=0.5).arguments()["loss"]
    assert (loss.beta, type(loss.loss), loss.loss.num_particles) == (0.5, TraceMeanField_ELBO, 3)
    run(capsys, "train", tmp_path, *options(file, "--loss", "dreg", "--particles", 3, "--beta", 0.5))
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["loss"] == "BetaELBO"


def test_options_reach_fit(file, tmp_path, capsys):
    more = (
        "--lr 0.5 --lr-decay linear --kl-warmup 4 --clip-norm 1 --free-bits 0.1 --on-nan skip --accumulate 2 --ema 0.9"
    )
    words = options(file, *more.split(), "--save-every", 0, "--patience", 9)
    run(capsys, "train", tmp_path, *words)
    settings = json.loads((tmp_path / "run.json").read_text())["settings"]
    assert (settings["clip_norm"], settings["accumulate"], settings["loss"]) == (1, 2, "FreeBits")
    assert settings["average"] == "_ema(0.9)"
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [float(row["lr"]) for row in rows] == [0.5, 0.25]
    assert float(rows[0]["kl_weight"]) == pytest.approx(2 / 3 / 4)  # at the last of three steps
    # A rate that has fallen to 0 cannot go on from there.
    assert "--epochs is 2 there and 3 here" in error(capsys, "train", tmp_path, *words, "--resume", "--epochs", 3)


def test_a_smaller_last_batch_can_be_left_out(file, tmp_path, capsys):
    """40 datapoints in batches of 16: of 3 steps, 2 are left."""
    words = options(file, "--epochs", 1, "--pictures-every", 0, "--no-tensorboard", "--drop-last")
    run(capsys, "train", tmp_path, *words)
    (row,) = csv.DictReader((tmp_path / "history.csv").open())
    assert int(row["step"]) == 2
    assert "--drop-last is True there and False here" in error(
        capsys, "train", tmp_path, *words[:-1], "--resume", "--epochs", 2
    )


def test_a_run_from_before_an_option_existed_can_be_resumed(trained, file, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "run")
    command = json.loads((tmp_path / "run" / "command.json").read_text())
    del command["options"]["drop-last"]
    (tmp_path / "run" / "command.json").write_text(json.dumps(command))
    words = options(file, "--resume", "--epochs", 3)
    assert "--drop-last is None there and True here" in error(capsys, "train", tmp_path / "run", *words, "--drop-last")
    assert "epoch 3/3" in run(capsys, "train", tmp_path / "run", *words)


def test_a_run_that_goes_on_ends_as_one_that_was_never_stopped(file, tmp_path, capsys):
    for epochs, name, *more in ((4, "whole"), (2, "parts"), (4, "parts", "--resume")):
        run(capsys, "train", tmp_path / name, *options(file, "--epochs", epochs, *more))
    whole, parts = (load(tmp_path / name / "last.safetensors").state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_stopped_can_go_on(file, tmp_path, tmp_path_factory, processes, capsys, number, status):
    printed = tmp_path_factory.mktemp("printed") / "run"
    process = start(processes, printed, command, "train", tmp_path, *options(file, "--epochs", 10**6))
    said = printed.with_suffix(".stderr")
    while not (said.exists() and "\n" in said.read_text()):
        assert process.is_alive(), said.read_text()
        time.sleep(0.05)
    assert re.match(r"epoch 1/1000000  loss ", said.read_text())
    os.kill(process.pid, number)
    process.join(300)
    assert process.exitcode == status
    *_, last = said.read_text().splitlines()
    assert re.match(r"stopped in epoch \d+, after \d+ steps; the run is saved in", last)
    done = int(re.search(r"epoch (\d+)", last)[1])
    out = run(capsys, "train", tmp_path, *options(file, "--resume", "--epochs", done))
    assert f"epoch {done}/{done}" in out
    assert len(list(csv.DictReader((tmp_path / "history.csv").open()))) == done


def test_two_processes_print_as_one(file, tmp_path, tmp_path_factory, processes):
    """The weights are more than a pipe holds, in which processes could get stuck."""
    more = ("--network.hidden", 400, "--devices", 2, "--strategy", "ddp_fork", "--device", "cpu")
    printed = tmp_path_factory.mktemp("printed") / "run"
    process = start(processes, printed, command, "train", tmp_path, *options(file, *more))
    process.join(300)
    out, err = (printed.with_suffix(f".{name}").read_text() for name in ("stdout", "stderr"))
    assert process.exitcode == 0, err
    assert re.findall(r"epoch \d/2", out + err) == ["epoch 2/2", "epoch 1/2", "epoch 2/2"]
    assert load(tmp_path).event_shape == SIZE


# Data


@pytest.mark.parametrize("kind", ["npy", "npz", "pt"])
def test_what_is_not_there_is_set_aside(tmp_path, kind):
    x, path = torch.arange(25 * 6, dtype=torch.float64).reshape(25, 6), tmp_path / f"x.{kind}"
    if kind == "pt":
        torch.save({"train": x, "train_labels": torch.arange(25)}, path)
    else:
        np.save(path, x) if kind == "npy" else np.savez(path, anything=x)
    splits = read_splits(path)
    parts = (splits.train, splits.valid, splits.test)
    assert [len(part) for part in parts] == [19, 3, 3]
    assert torch.equal(torch.cat(parts).sort(dim=0).values, x.float())
    assert not torch.equal(torch.cat(parts), x.float())
    if kind == "pt":
        assert torch.equal(splits.test[:, 0], 6.0 * splits.test_labels)


def test_what_is_set_aside_leaves_data_to_train_on(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match="has 2 datapoints, too few to split"):
        read_splits(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.zeros((3, 3)))
    assert len(read_splits(tmp_path / "x.npy").train) == 1


def test_bytes_are_grey_levels_and_matrices_are_images(tmp_path):
    levels = np.arange(200, dtype=np.uint8).reshape(50, 2, 2)
    np.savez(tmp_path / "x.npz", train=levels, valid=levels[:2], test=levels[:3])
    splits = read_splits(tmp_path / "x.npz")
    assert splits.train.shape == (50, 1, 2, 2)
    assert torch.equal(splits.train.flatten() * 255, torch.arange(200.0))


def test_data_that_are_no_images_are_trained_on_without_pictures(tmp_path, capsys):
    torch.save(torch.randn(50, 3), tmp_path / "x.pt")
    run(capsys, "train", tmp_path / "run", *options(tmp_path / "x.pt", likelihood="normal"))
    run(capsys, "plot", tmp_path / "run")
    assert {path.stem for path in (tmp_path / "run").glob("*.png")} == {"curves", "codes"}
    run(capsys, "sample", tmp_path / "run", "--draws", tmp_path / "x.npy")
    assert "is not an image" in error(capsys, "sample", tmp_path / "run")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_nothing_in_a_file_is_executed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), "x.pt")
    torch.save({"train": torch.ones(30, 2), "more": Evil()}, "y.pt")
    torch.save(Evil(), "old.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), "module.pt")
    Path("raw.pt").write_bytes(pickle.dumps(Evil()))
    np.save("x.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    Path("raw.npy").write_bytes(pickle.dumps(Evil()))
    np.savez("x.npz", train=np.array([Evil()], dtype=object))
    for name in ("x.pt", "y.pt", "old.pt", "module.pt", "raw.pt", "x.npy", "raw.npy", "x.npz"):
        said = error(capsys, "train", "run", "--data", name)
        assert said == (
            f"pyro-vae: error: the data file '{name}' cannot be read: it has pickled Python objects, which may run "
            "any code when loaded; expected arrays of numbers"
        )
    assert not Path("executed").exists()


FOREIGN = {
    "text.pt": lambda path: path.write_text("no tensors"),
    "empty.pt": lambda path: path.write_bytes(b""),
    "text.npy": lambda path: path.write_text("no arrays"),
    "empty.npz": lambda path: path.write_bytes(b""),
    "cut.pt": lambda path: path.write_bytes(of_tensor(torch.ones(30, 2))[:-200]),
    "cut.npy": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'"),
    "script.pt": lambda path: torch.jit.script(torch.nn.Identity()).save(path),
    "zip.pt": lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"),
    "numbers.pt": lambda path: torch.save({1: torch.ones(30, 2), 2: torch.ones(30, 2)}, path),
    "none.pt": lambda path: torch.save({}, path),
    "words.pt": lambda path: torch.save({"train": ["a", "b"]}, path),
    "sparse.pt": lambda path: torch.save(torch.eye(30).to_sparse(), path),
    "meta.pt": lambda path: torch.save(torch.ones(30, 2, device="meta"), path),
    "labels.pt": lambda path: torch.save({"train": torch.ones(30, 2), "train_labels": "abc"}, path),
    "few labels.pt": lambda path: torch.save({"train": torch.ones(30, 2), "train_labels": torch.ones(3)}, path),
}


def of_tensor(tensor):
    content = io.BytesIO()
    torch.save(tensor, content)
    return content.getvalue()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused_in_our_own_words(tmp_path, capsys, name):
    FOREIGN[name](tmp_path / name)
    said = error(capsys, "train", tmp_path / "run", "--data", tmp_path / name)
    assert str(tmp_path / name) in said
    assert not re.search("weights_only|allow_pickle|unsafe|torch.load|np.load", said)


def test_a_hostile_checkpoint_is_refused_in_our_own_words(tmp_path, capsys):
    torch.save(Evil(), tmp_path / "last.safetensors")
    for command in ("evaluate", "sample", "plot", "info"):
        said = error(capsys, command, tmp_path)
        assert "last.safetensors is not a checkpoint of pyro_vae, or is damaged" in said
        assert "weights_only" not in said


# Errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "train, evaluate, sample, plot, explore, score, encode, impute, share, export, info"),
        (["polish"], "there is no command 'polish'; expected one of train, evaluate,"),
        (["train"], "Missing from pyro-vae train: PATH"),
        (
            ["train", "OUT", "--prior", "nothing"],
            "'nothing' for argument '--prior'. Expected one of ('standard-normal',",
        ),
        (["train", "OUT", "--prior"], "--prior"),
        (["train", "OUT", "--prior.components", "3"], "--prior.components"),
        (["train", "OUT", "--epoch", "3"], "--epochs"),
        (["train", "OUT", "--lr", "fast"], "--lr"),
        (["train", "OUT", "--loss", "other"], "--loss"),
        (["train", "OUT", "--device", "cuda:99"], "device 'cuda:99' does not exist here"),
        (["train", "OUT", "--data", "nothing"], "expected one of mnist"),
        (["train", "OUT", "--data", "nothing.npy"], "nothing.npy"),
        (["train", "OUT", "--data", "images.mat"], "expected one of .npy, .npz, .pt"),
        (["train", "OUT", "--data", "binarized_mnist"], "binarized_mnist needs --data-root, the folder with its files"),
        (
            ["train", "OUT", "--free-bits", "1", "--loss", "trace"],
            "--free-bits replaces --loss and --particles; leave them out",
        ),
        (["train", "OUT", "--particles", "0"], "--particles is 0"),
        (["train", "OUT", "--beta", "0"], "beta is 0"),
        (["train", "OUT", "--kl-warmup", "0"], "expected a positive number"),
        (["train", "OUT", "--ema", "1"], "decay is 1.0; expected a number from 0 to below 1"),
        (["train", "OUT", "--loss", "dreg"], "--particles, for --loss dreg, is 1; expected an integer of at least 2"),
        (["train", "OUT", "--free-bits", "-1"], "expected a positive number"),
        (["train", "FILE"], "cannot write to the folder"),
        (["evaluate", "MISSING"], "there is no file or folder 'MISSING'"),
        (["evaluate", "MISSING", "--limit", "0"], "--limit is 0"),
        (["sample", "MISSING"], "there is no file or folder 'MISSING'"),
        (["sample", "MISSING", "--count", "0"], "--count is 0"),
        (["sample", "MISSING", "--draws", "x.txt"], "expected a file .npy or .safetensors"),
        (["plot", "MISSING"], "there is no file or folder 'MISSING'"),
        (["info", "MISSING"], "there is no run or saved model in the folder"),
        (["evaluate", "."], "there is no checkpoint in the folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    assert message in error(capsys, *words)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epochs", "0"], "epochs is 0"),
        (["--lr", "-1"], "lr is -1.0"),
        (["--latent-dim", "0"], "--latent-dim is 0"),
        (["--prior", "vamp", "--prior.components", "41"], "--prior.components is 41; expected from 1 to 40"),
        (["--network", "convolutional", "--network.channels", "4", "4", "4", "4"], "8 x 8"),
        (["--precision", "float16"], "--precision"),
        (
            ["--binarize", "none", "--likelihood", "discretized-logistic", "--likelihood.levels", "3"],
            "outside the support",
        ),
    ],
)
def test_values_that_cannot_be_are_said_in_a_line(file, tmp_path, capsys, more, message):
    words = ["--data", file, "--pictures-every", 0, "--no-tensorboard", "--compile", "none"]
    assert message in error(capsys, "train", tmp_path, *words, *more)
    assert not (tmp_path / "last.safetensors").exists()


def test_a_run_is_not_written_over(trained, file, capsys):
    before = {path: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    assert "resume it with --resume" in error(capsys, "train", trained, *options(file))
    for more, message in (
        (["--lr", 0.1], "--lr is 0.001 there and 0.1 here"),
        (["--seed", 1], "--seed is 0 there"),
        (["--kl-warmup", 3], "--kl-warmup is None there and 3.0 here"),
        (["--network.hidden", 8], "--network.hidden is [16] there and [8] here"),
    ):
        assert message in error(capsys, "train", trained, *options(file, "--resume", *more))
    assert before == {path: path.read_bytes() for path in trained.iterdir() if path.is_file()}


def test_damage_is_found_and_debug_says_where(trained, file, tmp_path, capsys):
    for name in ("last.safetensors", "command.json"):
        content = bytearray((trained / name).read_bytes())
        content[len(content) // 2] ^= 255
        (tmp_path / name).write_bytes(content)
    for words in (["info"], ["sample"], ["evaluate"], ["plot"]):
        assert "last.safetensors is damaged" in error(capsys, *words, tmp_path)
    assert "command.json' is damaged" in error(capsys, "train", tmp_path, "--resume", *options(file))
    (tmp_path / "command.json").unlink()
    assert "last.safetensors is damaged" in error(capsys, "train", tmp_path, "--resume", *options(file))
    assert main(["info", str(tmp_path), "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "CheckpointError" in err


def test_a_folder_without_a_command_needs_to_be_told_the_data(trained, file, tmp_path, capsys):
    (tmp_path / "last.safetensors").write_bytes((trained / "last.safetensors").read_bytes())
    assert "choose the data with --data" in error(capsys, "evaluate", tmp_path)
    run(capsys, "evaluate", tmp_path, "--data", file, "--binarize", "fixed")
    assert "settings" in run(capsys, "info", tmp_path)
    run(capsys, "plot", tmp_path, "--data", file, "--binarize", "fixed")
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.filterwarnings("default:x has grey values")
def test_a_warning_is_a_line(file, tmp_path, capsys):
    words = options(file, "--binarize", "none", "--pictures-every", 0, "--no-tensorboard", likelihood="bernoulli")
    assert main(["train", str(tmp_path), *words]) == 0
    assert re.search(r"^pyro-vae: warning: x has grey values.*binarize\)$", capsys.readouterr().err, re.MULTILINE)


def test_the_commands_of_the_readme_are_understood():
    (block,) = re.findall(r"```bash\n(pyro-vae train.*?)```", README, flags=re.DOTALL)
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert [type(_parse(words)).__name__.partition("[")[0] for _, *words in commands] == [
        "Train", "Evaluate", "Sample", "Plot", "Explore", "Info",
    ]  # fmt: skip


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "pyro_vae", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "evaluate" in result.stdout
    assert pyro_vae.__name__ in command
