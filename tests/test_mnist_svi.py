"""The example, as a user runs it, at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from new_process import script, start

from pyro_vae.training import LAST, load

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "mnist_svi.py"
SMALL = ["--epochs", "2", "--batch-size", "1000", "--hidden", "32", "--test-images", "20", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, processes):
    out = tmp_path_factory.mktemp("run") / "made" / "here"
    printed = tmp_path_factory.mktemp("printed") / "run"
    process = start(processes, printed, script, EXAMPLE, *SMALL, "--latent-dim", 2, "--out", out)
    process.join()
    assert process.exitcode == 0, printed.with_suffix(".stderr").read_text()
    words = printed.with_suffix(".stdout").read_text()
    assert "ELBO, Pyro Trace_ELBO" in words
    assert "standard error of the finite test set" in " ".join(words.split())
    assert "datapoints   settled   seconds" in words
    return out


@pytest.fixture(scope="module")
def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_metrics_have_the_keys_of_the_contract(metrics):
    for key in (
        "test_elbo_trace", "test_elbo_meanfield", "test_elbo_analytic",
        "test_log_px", "test_log_px_se", "seconds_train", "seconds_evaluate",
        "test_log_px_population_se", "test_log_px_settled", "test_log_px_settled_mean", "test_log_px_settled_error",
    ):  # fmt: skip
        assert isinstance(metrics[key], float), key
    # Null where an error is not known, and where there are too few samples for a k-hat.
    for key in ("test_log_px_error", "pareto_k_max"):
        assert metrics[key] is None or isinstance(metrics[key], float)
    assert "certificate_gap" not in metrics


def test_both_errors_are_those_of_these_images(metrics):
    assert 0 < metrics["test_log_px_se"] < metrics["test_log_px_settled_error"] < metrics["test_log_px_population_se"]
    assert (metrics["test_log_px_error"] is None) == (metrics["test_log_px_settled"] < 1)
    assert metrics["test_log_px_settled"] > 0.9


def test_a_certificate(run_example, capsys, tmp_path):
    more = ["--latent-dim", 2, "--test-images", 8, "--certify", 8, "--epochs", 1, "--out", tmp_path]
    run_example("mnist_svi.py", *SMALL, *more)
    assert "certificate: on 8 datapoints" in capsys.readouterr().out
    assert isinstance(json.loads((tmp_path / "metrics.json").read_text())["certificate_gap"], float)


def test_bounds_agree_and_lie_below_log_px(metrics):
    bounds = {
        name: (metrics[f"test_elbo_{name}"], metrics[f"test_elbo_{name}_se"])
        for name in ("trace", "meanfield", "analytic")
    }
    for a, a_error in bounds.values():
        assert a < metrics["test_log_px"]
        for b, b_error in bounds.values():
            assert abs(a - b) <= 3 * (a_error**2 + b_error**2) ** 0.5
    assert metrics["test_elbos_agree"] is True


def test_it_learns(metrics):
    """A Bernoulli with the mean image alone has a log-likelihood of about -206 nats; so has a VAE that ignores z."""
    assert -200 < metrics["test_log_px"] < -80
    assert metrics["history"]["train"][1] < metrics["history"]["train"][0]
    assert metrics["history"]["valid"][1] < metrics["history"]["valid"][0]


@pytest.mark.parametrize("name", ["loss", "reconstructions", "samples", "manifold", "codes"])
def test_pictures_are_drawn(folder, name):
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_bits_and_another_does_not(run_example, folder, metrics, tmp_path):
    """In another process than the first run, which is this one."""
    weights = load(folder / LAST).state_dict()
    for seed, same in ((0, True), (1, False)):
        run_example("mnist_svi.py", *SMALL, "--latent-dim", 2, "--out", tmp_path, "--seed", seed)
        again = load(tmp_path / LAST).state_dict()
        assert all(torch.equal(again[name], weights[name]) for name in weights) == same
        numbers = json.loads((tmp_path / "metrics.json").read_text())
        differ = {key for key in metrics if metrics[key] != numbers[key]}
        assert (differ <= {"seconds_train", "seconds_evaluate", "settings"}) == same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cuda:99"], "device 'cuda:99' does not exist here"),
        (["--out", EXAMPLE], "cannot write to the folder"),
        (["--test-images", "0"], "'0' is not an integer of at least 1"),
        (["--certify", "-1"], "'-1' is not an integer of at least 0"),
        (["--epochs", "0"], "'0' is not an integer of at least 1"),
        (["--lr", "nan"], "'nan' is not a positive number"),
        (["--hidden"], "expected at least one argument"),
        (["--latent-dim", "two"], "'two' is not an integer of at least 1"),
        (["--elbo", "other"], "invalid choice: 'other'"),
    ],
)
def test_bad_arguments_end_it_at_once_with_one_line(run_example, monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_example("mnist_svi.py", *arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
