"""The examples that set a VAE, and its divergence, beside simpler things: laws that hold at any size."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from conftest import EXAMPLES
from matplotlib.image import imread

MAX_STANDARD_ERRORS = 4.5  # of a normal: a false alarm in 150000 comparisons


def read(folder: Path, *pictures: str) -> dict:
    """The numbers of an example that has drawn these pictures."""
    for name in pictures:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
        assert imread(folder / name).std() > 0.01
    return json.loads((folder / "metrics.json").read_text())


def test_kl_divergence(run_example, tmp_path, capsys):
    run_example("kl_divergence.py", "--num-samples", 20_000, "--steps", 100, "--out", tmp_path)
    metrics = read(tmp_path, "estimates.png", "fits.png")
    assert "closed form" in capsys.readouterr().out
    for name, exact in metrics["exact"].items():
        assert exact["closed_form"] == pytest.approx(exact["torch"], rel=1e-14)
        for estimates in metrics["monte_carlo"][name].values():
            value, error = estimates["log q/p"]
            assert abs(value - exact["closed_form"]) < MAX_STANDARD_ERRORS * error
        assert metrics["slopes"][name]["log q/p"] == pytest.approx(-0.5, abs=0.1)
    *_, largest = metrics["monte_carlo"]["near"].values()
    assert largest["(r - 1) - log r"][1] < largest["log q/p"][1]
    *_, largest = metrics["monte_carlo"]["narrow"].values()
    assert largest["(r - 1) - log r"][1] > 5 * largest["log q/p"][1]
    errors = list(metrics["grid_errors"].values())
    assert errors[0] > 0.1
    assert errors[-1] < 1e-14

    fits = metrics["fits"]
    for key in ("loc", "scale"):  # KL(p || q) is least where the moments are those of p
        assert fits["KL(p || q), on a grid"][key] == pytest.approx(fits["mean and variance of p"][key], abs=1e-5)
    for mode in ("left", "right"):
        found, least = fits[f"{mode} mode, SVI"], fits[f"{mode} mode, on a grid"]
        assert least["reverse"] <= found["reverse"] < least["reverse"] + 0.02
        assert fits["KL(p || q), on a grid"]["forward"] < found["forward"]
    # For far modes the divergence of a fit to one of them is -log of its weight; the other mode can only help.
    for mode, weight in (("left", 0.35), ("right", 0.65)):
        assert -math.log(weight) - 0.02 < fits[f"{mode} mode, on a grid"]["reverse"] < -math.log(weight)


SIZES = {
    "--images": 500, "--epochs": 20, "--batch-size": 25, "--hidden": 32, "--labels": 300, "--draws": 60,
    "--test-images": 20, "--latent-dim": 2, "--device": "cpu",
}  # fmt: skip


def test_autoencoder_pca_vae(run_example, tmp_path, capsys):
    run_example("autoencoder_pca_vae.py", *(part for pair in SIZES.items() for part in pair), "--out", tmp_path)
    metrics = read(tmp_path, "samples.png", "reconstructions.png")
    assert "The linear VAE becomes PCA" in capsys.readouterr().out
    models = metrics["models"]
    assert set(models) == {"PCA", "linear VAE", "autoencoder", "VAE"}
    assert models["autoencoder"]["log_px"] is None
    # The linear VAE has a density that is known, and the data are the same as those of PCA.
    value, error = models["linear VAE"]["log_px"]
    assert 0 < error < 0.2
    assert value < models["PCA"]["log_px"][0] + 5
    for row in models.values():
        assert 0 < row["reconstruction_error"][0] < 0.07  # that of the mean image
        assert row["linear_probe"][0] > 0.2
        assert row["nearest_neighbours"][0] > 0.2
    # No linear model makes the data more likely than probabilistic PCA.
    linear = metrics["linear"]
    assert linear["train_log_px"] < linear["train_log_px_ppca"]
    assert linear["train_log_px_ppca"] - linear["train_log_px"] < 5
    assert 0 < linear["largest_angle"] < 45
    *numbers, distance = metrics["samples"]["training images"].values()
    assert min(numbers) > 0.5
    assert distance == min(row["frechet_distance"] for row in metrics["samples"].values())


def test_its_linear_models_are_what_they_are_said_to_be():
    """Probabilistic PCA has the covariance of the data in the first directions, and their mean variance in the rest."""
    names = runpy.run_path(str(EXAMPLES / "autoencoder_pca_vae.py"))
    images = torch.randn(200, 1, 28, 28) * torch.linspace(0.1, 2, 28)
    images = images - images.mean(0)
    pca = names["PCA"](images)
    p_x = pca.marginal(3)
    flat = images.flatten(1).double()
    sizes = torch.linalg.eigvalsh(p_x.covariance_matrix).flip(0)
    torch.testing.assert_close(sizes[:3], torch.linalg.eigvalsh(flat.T @ flat / 200).flip(0)[:3])
    torch.testing.assert_close(sizes.sum(), flat.square().sum(1).mean())
    torch.testing.assert_close(pca.encode(pca.decode(torch.eye(3)), 3), torch.eye(3).double())
    # To turn z is to change nothing, but to move the weights is to lose likelihood.
    weight = p_x.cov_factor + 0.1 * torch.randn(784, 3)
    moved = type(p_x)(p_x.loc, weight, p_x.cov_diag)
    assert moved.log_prob(flat).mean() < p_x.log_prob(flat).mean()
    assert names["largest_angle"](p_x.cov_factor, p_x.cov_factor @ torch.randn(3, 3).double()) < 1e-4
    a, b = torch.eye(4)[:, :2].double(), torch.tensor([[1, 0], [0, 0], [0, 1], [0, 3**0.5]]).double()
    assert names["largest_angle"](a, b) == pytest.approx(90)
    b[1, 1] = 2.0
    assert names["largest_angle"](a, b) == pytest.approx(45)


@pytest.mark.parametrize(
    ("name", "package"), [("kl_divergence.py", "scipy"), ("autoencoder_pca_vae.py", "scikit-learn")]
)
def test_a_package_that_is_absent_is_named_in_one_line(run_example, capsys, monkeypatch, tmp_path, name, package):
    for module in ("scipy.stats", "sklearn"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as ended:
        run_example(name, "--out", tmp_path)
    assert ended.value.code == 2
    assert package in capsys.readouterr().err.splitlines()[-1]
