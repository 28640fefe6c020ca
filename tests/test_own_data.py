"""The files of `examples/own_data.py`, and the commands for them, which are those of the documentation."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from conftest import EXAMPLES

from pyro_vae.cli import main

pytest.importorskip("sklearn")
DOCS = (EXAMPLES.parent / "docs" / "data.md").read_text()
EXPECTED = {
    "digits": ("1797 grey images, 8 x 8, 8 bit, 10 classes", "discretized-logistic", "convolutional"),
    "patches": ("3000 colour images, 12 x 12, 8 bit", "discretized-logistic", "convolutional"),
    "wine": ("a table of 178 rows and 13 columns", "columns", "mlp"),
    "cars": ("Name              drop (as chosen)", "columns", "mlp"),
    "cells": ("sparse counts, 1500 vectors of 40 values, counts", "negative-binomial", "mlp"),
    "temperatures": ("365 series of 24 steps and 2 features, real numbers, with missing values", "normal", "series"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_file_is_what_the_documentation_says(name, tmp_path, run_example, capsys, monkeypatch):
    if name in ("cars", "temperatures"):
        pytest.importorskip("vega_datasets")
    run_example("own_data.py", "--only", name, "--out", tmp_path)
    printed = capsys.readouterr().out
    commands = [line for line in printed.splitlines() if line.startswith("pyro-vae")]
    assert "\n".join(commands) in DOCS
    assert [command.split()[1] for command in commands[:5]] == ["train", "evaluate", "sample", "plot", "score"]
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(commands[0])[1:], "--dry-run"]) == 0
    words, likelihood, network = EXPECTED[name]
    said = capsys.readouterr().out
    assert words in said
    assert f"{likelihood} likelihood, {network} networks" in said


def test_a_package_that_is_absent_is_named(tmp_path, run_example, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "vega_datasets", None)
    run_example("own_data.py", "--only", "cars", "--out", tmp_path)
    assert "cars needs another package: pip install vega_datasets" in capsys.readouterr().out
    assert not list(Path(tmp_path).iterdir())
