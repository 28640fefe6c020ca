"""The table of importance weighted autoencoders, at a tiny size, and that it goes on where it was stopped."""

from __future__ import annotations

import json
import runpy
import signal
from functools import cache, partial
from itertools import pairwise

import pytest
import torch
from conftest import EXAMPLES

import pyro_vae
from pyro_vae import data
from pyro_vae.training.session import Session

SIZES = ["--epochs", 2, "--images", 40, "--batch-size", 20, "--test-images", 2, "--num-samples", 30, "--device", "cpu"]
SIZES += ["--max-temperatures", 4]  # enough for numbers, if not for errors


@pytest.fixture
def steps(monkeypatch):
    """The steps that were taken, one entry each; and where to stop, as at Ctrl-C.

    They run as in Pyro: to record a step takes longer than to take the few that there are here.
    """
    monkeypatch.setattr(pyro_vae, "fit", partial(pyro_vae.fit, compile=False))
    taken, step = [], Session.step

    def counted(self, batch, *, stop):
        is_stopping = step(self, batch, stop=stop)
        taken.append(self.run.out.name)
        if len(taken) == counted.stop_after:
            signal.raise_signal(signal.SIGINT)
        return is_stopping

    counted.stop_after = None
    monkeypatch.setattr(Session, "step", counted)
    counted.taken = taken
    return counted


load = cache(data.load)


@pytest.fixture
def run(monkeypatch, run_example):
    monkeypatch.setattr(data, "load", load)  # once for all tests
    return partial(run_example, "iwae_table.py", smaller={"[width, width]": "[width // 10, width // 10]"})


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLES / "iwae_table.py"))


def table(out):
    rows = json.loads((out / "table.json").read_text())["rows"]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_the_schedule_is_the_papers(example):
    """Burda et al. 2015, section 5: 3^i epochs with a learning rate of 0.001 * 10^(-i / 7), for i from 0 to 7."""
    expected = [10 ** (-i / 7) for i in range(8) for _ in range(3**i)]
    assert [example["decay"](epoch, 1, 3280) for epoch in range(3280)] == expected
    for steps_per_epoch in (7, 3000):  # all steps of an epoch have the rate of the epoch
        for epoch in (0, 1, 3, 4, 12, 13, 1092, 1093, 3279):
            for step in (0, steps_per_epoch - 1):
                rate = example["decay"](epoch * steps_per_epoch + step, steps_per_epoch, 3280)
                assert rate == expected[epoch]


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(1, 1000), (2, 600), (100, 17)])
def test_a_shorter_schedule_has_all_stages_ever_longer(example, epochs, steps_per_epoch):
    steps = epochs * steps_per_epoch
    rates = [example["decay"](step, steps_per_epoch, epochs) for step in range(steps)]
    stages = [10 ** (-i / 7) for i in range(8)]
    assert sorted(set(rates), reverse=True) == stages
    assert rates == sorted(rates, reverse=True)
    factor = (1 + 2 * epochs) ** (1 / 8)
    begins = [steps_per_epoch * (factor**i - 1) / 2 for i in range(9)]
    for i, rate in enumerate(stages):
        assert abs(rates.count(rate) - (begins[i + 1] - begins[i])) <= 1  # steps are whole
    assert example["decay"](steps, steps_per_epoch, epochs) == stages[-1]  # which a scheduler asks for at the end


@pytest.mark.parametrize("layers", [1, 2])
def test_the_networks_are_the_papers(example, layers):
    grey = torch.rand(1, 28, 28)
    vae = example["build"](layers, grey)
    widths = [[784, 200, 200, 100], [50, 200, 200, 784]]
    if layers == 2:
        widths = [[50, 100, 100, 200], [100, 200, 200, 784], [784, 200, 200, 200], [100, 100, 100, 100]]
    expected = sum((a + 1) * b for chain in widths for a, b in pairwise(chain))
    assert sum(parameter.numel() for parameter in vae.parameters()) == expected
    latent = torch.zeros(1, 50 if layers == 1 else 100)
    torch.testing.assert_close(vae.likelihood(latent).mean[0], grey.clamp(0.001, 0.999))  # all else begins at 0 there


def test_the_table_has_the_papers_rows_and_goes_on(run, steps, tmp_path, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    arguments = [*SIZES, "--particles", 3, 1]
    run(*arguments, "--layers", 2, 1, "--out", whole)
    lines = capsys.readouterr().out.splitlines()
    results = table(whole)
    expected = [(depth, *row) for depth in (1, 2) for row in (("IWAE", 1), ("VAE", 3), ("IWAE", 3))]
    assert [(row["layers"], row["objective"], row["k"]) for row in results] == expected
    for row, line in zip(results, lines[4:], strict=False):
        assert f"{row['nll']:.2f}" in line
        assert 0 <= row["settled"] <= 1
        assert (row["nll_error"] is None) == (row["settled"] < 0.5)
        if row["settled"] == 1:
            assert row["nll"] < row["nll_importance"] + row["nll_error"]  # of which the mean is an upper bound
        most = [50] if row["layers"] == 1 else [100, 50]
        assert all(0 <= units <= size for units, size in zip(row["active_units"], most, strict=True))
        assert row["gain"] is None or row["k"] > 1
        if row["k"] > 1:
            of_one = next(each for each in results if each["layers"] == row["layers"] and each["k"] == 1)
            if row["settled"] == of_one["settled"] == 1:
                assert row["gain"] == pytest.approx(of_one["nll"] - row["nll"], abs=1e-9)
    assert [row["paper_nll"] for row in results] == [86.76, None, None, 85.33, None, None]  # it has no k = 3
    assert (whole / "iwae_table.png").read_bytes().startswith(b"\x89PNG")
    assert "not to be compared" in lines[-2]
    assert len(steps.taken) == 6 * 4

    # Stopped within the third row, it goes on to the same numbers; what was done is not done again.
    steps.taken.clear()
    steps.stop_after = 2 * 4 + 1
    with pytest.raises(SystemExit) as end:
        run(*arguments, "--out", stopped)
    assert end.value.code == 130
    assert "the same command resumes it" in capsys.readouterr().err
    run(*arguments, "--out", stopped)
    assert len(steps.taken) == 3 * 4
    assert table(stopped) == results[:3]

    # More rows are only those rows; other settings are another table.
    steps.taken.clear()
    run(*SIZES, "--particles", 3, 2, 1, "--objectives", "IWAE", "--out", stopped)
    assert steps.taken == ["1-layer-iwae-2"] * 4
    assert [row for row in table(stopped) if row["k"] != 2] == [results[0], results[2]]
    for other in (["--epochs", 3], ["--num-samples", 40], ["--lr", 1e-4]):
        with pytest.raises(SystemExit) as end:
            run(*arguments, *other, "--out", stopped)
        assert end.value.code == 2
        assert "is of another run" in capsys.readouterr().err.splitlines()[-1]


def test_full_is_the_papers_training(run, monkeypatch, tmp_path):
    seen = {}

    def stop(_self, _vae, train, settings, **_others):
        seen.update(vars(settings), images=len(train))
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "__init__", stop)
    with pytest.raises(SystemExit) as end:
        run("--full", "--out", tmp_path)
    assert end.value.code == 130
    assert (seen["epochs"], seen["images"], seen["batch_size"], seen["lr"]) == (3280, 60_000, 20, 1e-3)
    with pytest.raises(SystemExit):
        run("--full", "--epochs", 5, "--out", tmp_path)
    assert (seen["epochs"], seen["batch_size"]) == (5, 20)


def test_the_fixed_binarization(run, literature_data, tmp_path):
    run(*SIZES, "--binarization", "fixed", "--data", literature_data, "--particles", 1, "--out", tmp_path)
    (row,) = table(tmp_path)
    assert row["paper_nll"] == 88.71
