"""The script benchmarks/posterior_families.py, with little work."""

import importlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pyro_vae import data, evidence


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    mnist = data.load("mnist", num_valid=0)
    few = replace(mnist, train=mnist.train[:400].clone(), test=mnist.test[:20].clone())
    monkeypatch.setattr(data, "load", lambda *_, **__: few)
    return importlib.import_module("posterior_families")


def test_numbers_are_those_of_the_weights_at_their_times(benchmark, monkeypatch, tmp_path):
    kept, split = [], partial(evidence.inference_gap, num_steps=30, max_rounds=2)
    monkeypatch.setattr(evidence, "inference_gap", split)
    monkeypatch.setattr(evidence, "estimate", partial(evidence.importance, num_samples=500))

    def train(make, images, seconds, seed):
        assert list(seconds) == pytest.approx([0.006, 2.4])
        kept.append(trained(make, images, seconds, seed))
        return kept[-1]

    trained = benchmark.train
    monkeypatch.setattr(benchmark, "train", train)
    options = "--minutes", "0.0001", "0.04", "--images", "2", "--samples", "50"
    words = "--only", "FullNormal", "InverseAutoregressive", *options, "--results", str(tmp_path)
    monkeypatch.setattr(sys, "argv", ["posterior_families.py", *words])
    benchmark.main()
    content = json.loads((tmp_path / "posterior_families.json").read_text())
    normal, flow = content["families"].values()
    x = data.binarize.fixed(data.load("mnist").test)[::10]
    for found, snapshots in zip((normal, flow), kept, strict=True):
        assert [at["minutes"] for at in found["times"]] == [at / 60 for at in snapshots.at]
        assert snapshots.at[0] >= 0.006
        assert snapshots.at[1] >= 2.4
        assert snapshots.epochs[0] < snapshots.epochs[1]
        for at, vae in zip(found["times"], snapshots.vaes, strict=True):
            by_guide = evidence.importance(vae.model, vae.guide, x, num_samples=50, progress=False)
            assert by_guide.elbo.mean().item() == pytest.approx(at["elbo"], abs=20)  # the times are 100 nats apart
            assert at["log_prob"] > at["elbo"]
        last, gap = found["times"][-1], found["gap"]
        assert gap["images"] <= 2
        if gap["images"] == 2:
            parts = gap["approximation"] + gap["amortization"]
            assert parts == pytest.approx(last["log_prob"] - last["elbo"], abs=6)  # the ELBO has 50 draws
    text = (tmp_path / "posterior_families.md").read_text()
    assert text.count("| FullNormal |") == 3  # the last row is of its gap
    assert text.count("| InverseAutoregressive |") == 3
    assert (tmp_path / "posterior_families.png").read_bytes().startswith(b"\x89PNG")


def test_budgets_that_end_in_the_same_epoch_have_one_copy(benchmark):
    snapshots = benchmark.train(benchmark.FAMILIES["Normal"], data.load("mnist").train, [1e-9, 2e-9], 0)
    assert len(snapshots.vaes) == len(snapshots.epochs) == 1 == snapshots.epochs[0]
