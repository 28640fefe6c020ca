"""The benchmark of log p(x)'s methods: its pieces, at small sizes."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from pyro_vae import evidence

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("evidence_accuracy")


def test_quadrature_of_a_linear_decoder_is_exact(benchmark):
    weight = torch.randn(5, 2, dtype=torch.float64)
    bias = torch.randn(5, dtype=torch.float64)
    x = torch.randn(3, 5, dtype=torch.float64)

    def log_likelihood(z):
        return torch.distributions.Normal(z @ weight.T + bias, 0.4).log_prob(x[:, None]).sum(-1)

    found = benchmark.quadrature(log_likelihood, num_points=240)
    covariance = weight @ weight.T + 0.16 * torch.eye(5)
    exact = torch.distributions.MultivariateNormal(bias, covariance).log_prob(x)
    assert torch.allclose(found.log_prob, exact, atol=1e-9)
    # The error of the coarser grid, of which the finer one has much less.
    coarse = benchmark.quadrature(log_likelihood, num_points=120).log_prob
    assert torch.allclose(found.change, (found.log_prob - coarse).abs(), atol=1e-9)
    assert (found.near_border < 1e-6).all()
    near = benchmark.quadrature(log_likelihood, half_width=0.6, num_points=40)
    assert (near.near_border > 0.05).all()


def test_log_likelihood_of_pixels_by_one_matrix_product(benchmark, vae, x):
    z = torch.randn(11, 2, dtype=torch.float64)
    found = benchmark.log_bernoulli(vae.likelihood.network, x)(z)
    assert torch.allclose(found, vae.likelihood(z.float()[:, None]).log_prob(x).T, atol=1e-4)


def test_truth_of_linear_gaussians_is_that_of_their_programs(benchmark):
    models = benchmark.LinearGaussians(12, seed=3, shift=0.0, width=1.0)
    # The guide is the posterior: all weights are p(x).
    result = evidence.importance(models.model, models.guide, models.x, num_samples=4, progress=iter)
    assert torch.allclose(result.log_prob, models.truth, atol=1e-3)
    assert result.std_error.max() < 1e-3
    some = evidence.importance(models.model, models.guide, models.x[7:9], num_samples=4, progress=iter)
    assert torch.allclose(some.log_prob, models.truth[7:9], atol=1e-3)


def made_up(log_prob, error):
    log_prob, error = (torch.tensor(values, dtype=torch.float64) for values in (log_prob, error))
    zero = torch.zeros_like(log_prob)
    return evidence.Evidence(log_prob, error, zero, zero, zero, zero, log_prob, log_prob, num_samples=1)


def test_figures_of_made_up_numbers(benchmark):
    result = made_up([0.1, -0.2, 0.5, -1.0], [0.2, 0.1, 0.6, math.inf])
    zero = torch.zeros(4, dtype=torch.float64)
    found = benchmark.figures(result, zero, zero, seconds=2.0)
    assert found["seconds_per_datapoint"] == 0.5
    assert found["mean_difference"] == pytest.approx(-0.15)
    spread = sum((d + 0.15) ** 2 for d in (0.1, -0.2, 0.5, -1.0)) / 3
    assert found["mean_difference_se"] == pytest.approx(math.sqrt(spread / 4))
    assert found["rms"] == pytest.approx(math.sqrt(1.3 / 4))
    assert (found["beyond"], found["settled"], found["covered"]) == (0.5, 0.75, 0.75)
    assert found["covered_settled"] == pytest.approx(2 / 3)
    assert found["median_error_by_rms"] == pytest.approx(0.2 / math.sqrt(0.1))
    assert found["mean_error"] is None  # infinite
    # Where the truth is known badly, that is taken into account.
    assert benchmark.figures(result, zero, zero + 0.2, seconds=2.0)["covered_settled"] == 1
    nothing = benchmark.figures(made_up([1.0, 2.0], [math.inf] * 2), zero[:2], zero[:2], seconds=1.0)
    assert nothing["covered"] == 1
    assert nothing["covered_settled"] is nothing["median_error_by_rms"] is None
    assert "not known" in benchmark.table_row({"method": "nothing", **nothing})


def test_what_is_cached_is_of_its_key(benchmark, tmp_path):
    def compute(value):
        return lambda: {"value": torch.tensor([value])}

    path = tmp_path / "cache.safetensors"
    assert benchmark.cached(path, {"of": 1}, compute(1.0))["value"] == 1
    assert benchmark.cached(path, {"of": 1}, compute(2.0))["value"] == 1
    assert benchmark.cached(path, {"of": 2}, compute(3.0))["value"] == 3


def test_benchmark_saves_every_row(benchmark, monkeypatch, tmp_path, capsys):
    chosen = [method for method in benchmark.methods() if method.name in ("guide", "defensive", "Laplace")]
    monkeypatch.setattr(benchmark, "methods", lambda: chosen)
    options = ["--images", "4", "--model", tmp_path, "--out", tmp_path / "out", "--results", tmp_path]
    monkeypatch.setattr(sys, "argv", ["evidence_accuracy.py", "--only", "i", "iii", *map(str, options)])
    benchmark.main()
    assert "(iii) is left out" in capsys.readouterr().out
    problems = json.loads((tmp_path / "evidence_accuracy.json").read_text())["problems"]
    assert [[row["method"] for row in problem["rows"]] for problem in problems.values()] == [
        ["guide", "defensive", "Laplace"]
    ] * 2
    assert all(abs(row["mean_difference"]) < 3 for problem in problems.values() for row in problem["rows"])
    table = (tmp_path / "evidence_accuracy.md").read_text()
    assert table.count("| Laplace | 4 |") == 2
    assert (tmp_path / "evidence_accuracy.png").read_bytes().startswith(b"\x89PNG")
