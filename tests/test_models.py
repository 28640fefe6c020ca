"""The trained models in the folder models: small, with numbers that are those of the results, and ready to use."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from pyro_vae import data, evidence, load
from pyro_vae.cli import main

ROOT = Path(__file__).parents[1]
MODELS = sorted(path for path in (ROOT / "models").glob("*") if path.is_dir())
pytestmark = pytest.mark.skipif(not MODELS, reason="there are no models")


def results(folder):
    return json.loads((ROOT / "benchmarks" / "results" / "reproduce" / f"{folder.name}.json").read_text())


def test_they_are_small():
    assert sum(path.stat().st_size for path in (ROOT / "models").rglob("*") if path.is_file()) < 20e6


def test_the_page_names_models_that_are_there():
    named = re.findall(r"models/([\w-]+)", (ROOT / "docs" / "reproduced.md").read_text())
    assert named
    assert set(named) <= {folder.name for folder in MODELS}


@pytest.fixture(params=MODELS, ids=lambda folder: folder.name)
def folder(request):
    return request.param


@pytest.fixture
def where(folder, request):
    """The options of the command that say where the data are: none for those of the package."""
    if results(folder)["paper"]["test"] == "dynamic":
        return []
    return ["--data-root", str(request.getfixturevalue("literature_data"))]


def test_a_model_has_the_log_prob_of_its_results(folder, where):
    """Of every 50th image and with fewer samples: within 5 standard errors of both test sets."""
    found, vae = results(folder)["protocol"], load(folder)
    mnist = data.load("binarized_mnist", where[1]) if where else data.load("mnist")
    x = mnist.test[::50] if where else data.binarize.fixed(mnist.test)[::50]
    torch.manual_seed(0)
    result = evidence.importance(vae.model, vae.guide, x, num_samples=100, progress=False)
    errors = result.population_std_error**2 + found["population_std_error"] ** 2
    assert abs(result.mean - found["log_prob"]) < 5 * errors**0.5
    assert f"{found['log_prob']:.2f}" in (folder / "README.md").read_text()


def test_the_command_evaluates_it(folder, where, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / folder.name)  # the command writes a file
    assert main(["evaluate", str(copy), "--limit", "3", *where]) == 0
    assert "log p(x)" in capsys.readouterr().out
    assert json.loads((copy / "evidence.json").read_text())["datapoints"] == 3
