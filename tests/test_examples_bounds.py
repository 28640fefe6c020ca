"""The examples on bounds and on gradients, at a small size."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest


@pytest.fixture
def run(run_example, tmp_path):
    """Runs an example. Returns its metrics; its figure was drawn."""

    def run(name, *arguments):
        run_example(f"{name}.py", *arguments, "--out", tmp_path)
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        return json.loads((tmp_path / "metrics.json").read_text())

    return run


def test_bound_touches_evidence(run, capsys):
    metrics = run("bound_touches_evidence", "--points", 9, "--repeats", 40)
    for at in metrics["touch"].values():
        assert at["bound"] == pytest.approx(at["evidence"], abs=1e-12)
        assert at["bound_slope"] == pytest.approx(at["evidence_slope"], abs=1e-12)
    assert metrics["gap_minus_kl"] < 1e-12
    assert metrics["lowest_gap"] > -1e-12
    values = {name: value for name, (value, _) in metrics["bounds"].items()}
    order = [values["ELBO"], values["IWAE-5"], values["IWAE-50"], metrics["log_px"], values["CUBO"]]
    for (lower, higher), error in zip(pairwise(order), [error for _, error in metrics["bounds"].values()], strict=True):
        assert lower < higher + 4 * error
    assert order[0] < order[1] < order[-1]
    assert "they differ by at most" in capsys.readouterr().out


def test_gradient_variance(run, capsys):
    metrics = run(
        "gradient_variance", "--particles", 1, 3, "--draws", 12, "--linear-draws", 90, "--images", 5, "--train-images", 300
    )  # fmt: skip
    for by_count in metrics["bias"].values():
        for row in by_count.values():
            assert row["largest"] < 6  # of 24 numbers and 15 cases, of 90 draws: false alarms 3e-5
    for when, (ratio, _) in metrics["score_over_reparameterized"].items():
        assert ratio > 100, when
    for name, by_count in metrics["moments"]["at initialization"].items():
        if "baseline" not in name:  # three particles have a third of the variance
            ratio = by_count["1"]["total_variance"] / by_count["3"]["total_variance"]
            assert 3 / 1.6 < ratio < 3 * 1.6
    bounds = metrics["moments"]["many particles"]
    assert bounds["DReG"]["64"]["signal_to_noise"] > bounds["DReG"]["1"]["signal_to_noise"]
    assert bounds["IWAE"]["64"]["signal_to_noise"] < bounds["DReG"]["1"]["signal_to_noise"]
    assert "score function, baseline" in capsys.readouterr().out
