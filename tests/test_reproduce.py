"""The scripts of benchmarks/reproduce: every recipe trains, and the numbers are those of the run."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from pyro_vae import data, evidence, load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ROWS = ["vae-1-short", "vae-1", "vae-5", "vae-50", "iwae-5", "iwae-50"]
ROWS += ["vae-2-layers-1", "vae-2-layers-5", "vae-2-layers-50", "iwae-2-layers-5", "iwae-2-layers-50"]
ROWS += ["miwae", "piwae", "ciwae", "ladder", "omniglot-vae-1", "omniglot-iwae-50", "fashion-vae", "fashion-vamp"]
ROWS += ["vae-1-fixed", "iwae-50-fixed", "gated-vae", "gated-vamp", "hvae", "hvae-vamp"]
FEW = {"train": 60, "valid": 20, "test": 10}  # images


@pytest.fixture(scope="module")
def few_images():
    """A few images of MNIST. They are read once, since reading them all takes as long as the training of a test."""
    mnist = data.load("mnist")
    return replace(mnist, **{name: getattr(mnist, name)[:n].clone() for name, n in FEW.items()})


@pytest.fixture
def reproduce(few_images, monkeypatch):
    """The script, with few images, few samples, and two epochs of three steps, and without the literature's file."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from reproduce import __main__ as script
    from reproduce import rows

    def few(name, root=None, num_valid=10_000):  # noqa: ARG001
        if name == "mnist":
            return few_images if num_valid else replace(few_images, valid=few_images.valid[:0])
        fixed = {part: data.binarize.fixed(getattr(few_images, part), seed=i) for i, part in enumerate(FEW)}
        return replace(few_images, **fixed)

    monkeypatch.setattr(data, "load", few)
    fit = rows.fit
    monkeypatch.setattr(rows, "fit", lambda *args, **options: fit(*args, **{**options, "batch_size": 20}))
    for name, recipe in script.RECIPES.items():
        monkeypatch.setitem(script.RECIPES, name, partial(recipe, epochs=2, compile="graph", progress=False))
        monkeypatch.setitem(script.PAPERS, name, script.PAPERS[name]._replace(num_samples=50))
    return script


def run(script, monkeypatch, folder, *words):
    monkeypatch.setattr("sys.argv", ["reproduce", *words, "--runs", str(folder), "--data", str(folder)])
    script.main()
    return json.loads((folder / words[0] / script.RESULTS).read_text())


def test_these_are_the_rows(reproduce):
    assert list(reproduce.RECIPES) == list(reproduce.PAPERS) == ROWS


@pytest.mark.parametrize("name", ROWS)
def test_recipes_learn_and_can_be_loaded_from_their_folders(name, reproduce, monkeypatch, tmp_path):
    found = run(reproduce, monkeypatch, tmp_path, name, "--parts", "train")
    history = (tmp_path / name / "history.csv").read_text().splitlines()
    assert found["train"]["epochs"] == len(history) - 1 == 2
    vae, x = load(tmp_path / name), reproduce.test_images(reproduce.PAPERS[name], tmp_path)
    assert found["train"]["parameters"] == sum(each.numel() for each in vae.parameters())
    assert ((x == 0) | (x == 1)).all()
    torch.manual_seed(0)
    mean = evidence.importance(vae.model, vae.guide, x, num_samples=10, progress=False).mean
    assert mean > -784 * 0.6931  # that of fair coins


def test_numbers_are_those_of_the_run_and_finished_parts_are_not_repeated(reproduce, monkeypatch, tmp_path, capsys):
    first = run(reproduce, monkeypatch, tmp_path, "gated-vae", "--images", "5", "--certify", "2")
    out = tmp_path / "gated-vae"
    vae, x = load(out), reproduce.test_images(reproduce.PAPERS["gated-vae"], tmp_path)
    torch.manual_seed(0)
    by_guide = evidence.importance(vae.model, vae.guide, x, num_samples=50, progress=False)
    assert first["protocol"]["log_prob"] == by_guide.mean
    assert first["protocol"]["std_error"] == by_guide.mean_std_error
    assert first["protocol"]["elbo"] < first["protocol"]["log_prob"]
    torch.manual_seed(0)
    every_second = evidence.estimate(vae.model, vae.guide, x[::2], progress=False)
    assert first["estimate"]["images"] == 5
    assert first["estimate"]["log_prob"] == every_second.mean
    above = every_second.log_prob - by_guide.log_prob[::2]
    assert first["estimate"]["above_protocol"] == pytest.approx(above.mean().item(), abs=1e-9)
    assert above.mean() > 0  # 50 samples of a guide that was hardly trained
    # Half of the images were left out: the standard error of a mean over 5 of 10, beside the error of the estimate.
    error = every_second.mean_error + 1.96 * above.std().item() / 5**0.5 * 0.5**0.5
    assert first["estimate"]["above_protocol_error"] == pytest.approx(error, abs=1e-9)
    assert first["estimate"]["certificate_gap"] is not None
    torch.manual_seed(0)
    parts = evidence.decompose_elbo(vae.model, vae.guide, x, progress=False)
    assert first["activity"]["layers"] == {"z": {"active": parts.active["z"].sum().item(), "units": 40}}
    assert first["activity"]["rate"] == parts.rate
    assert (first["row"], first["paper"]["log_prob"]) == ("gated-vae", -88.56)

    copy = tmp_path / "copies" / "row.json"
    for part in reproduce.PARTS:
        monkeypatch.setattr(reproduce, part, None)  # fails if it is called
    words = "gated-vae", "--images", "5", "--certify", "2", "--json", str(copy)
    assert run(reproduce, monkeypatch, tmp_path, *words) == first == json.loads(copy.read_text())
    assert "protocol" in capsys.readouterr().out

    run(reproduce, monkeypatch, tmp_path, *words, "--share", str(tmp_path / "models" / "gated-vae"))
    shared = load(tmp_path / "models" / "gated-vae")
    for mine, theirs in zip(shared.parameters(), vae.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    card = (tmp_path / "models" / "gated-vae" / "README.md").read_text()
    mean = first["protocol"]["log_prob"] + first["estimate"]["above_protocol"]
    assert f"{first['protocol']['log_prob']:.2f} (50 samples" in card
    decimals = max(0, 1 - math.floor(math.log10(error)))  # two digits of the error
    assert f"log p(x) = {mean:.{decimals}f} ± {error:.{decimals}f} nats" in card
    command = json.loads((tmp_path / "models" / "gated-vae" / "command.json").read_text())
    assert command["options"]["data"] == "binarized_mnist"


@pytest.mark.parametrize("row", ["hvae", "omniglot-vae-1"])
def test_rows_of_other_data_need_their_files(row, reproduce, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["reproduce", row, "--runs", str(tmp_path)])
    with pytest.raises(SystemExit):
        reproduce.main()
    assert f"the row {row} needs --data FOLDER" in capsys.readouterr().err


def test_seconds_of_all_sessions_are_counted(reproduce, monkeypatch, tmp_path):
    for start, end, total in ((100.0, 107.0, 7.0), (3.0, 5.5, 9.5)):  # a process each
        monkeypatch.setattr(reproduce.time, "process_time", lambda: start)  # noqa: B023
        cpu_time = reproduce.CpuTime(tmp_path)
        monkeypatch.setattr(reproduce.time, "process_time", lambda: end)  # noqa: B023
        cpu_time(None)
        assert cpu_time.seconds == total
