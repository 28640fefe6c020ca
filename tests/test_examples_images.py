"""The examples on images, at a small size: laws that their numbers obey at any size, and files that are pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def check_pictures(folder: Path, *names: str) -> None:
    assert {path.name for path in folder.iterdir()} == {*names, "metrics.json"}
    for name in names:
        with Image.open(folder / name) as image:
            assert image.format == Path(name).suffix[1:].upper()


def test_latent_space_2d(run_example, tmp_path, capsys):
    sizes = ["--epochs", 2, "--images", 400, "--test-images", 20, "--codes", 50, "--pairs", 4, "--steps", 3]
    run_example("latent_space_2d.py", *sizes, "--device", "cpu", "--out", tmp_path)
    check_pictures(
        tmp_path, "training.gif", "manifold.png", "codes.png", "interpolation.png", "interpolation_log_px.png"
    )
    with Image.open(tmp_path / "training.gif") as gif:
        assert gif.n_frames == 1 + 2
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    test = metrics["test"]
    assert test["elbo"] == pytest.approx(-test["distortion"] - test["rate"])
    assert test["rate"] > 0
    assert test["log_px"] + test["log_px_error"] > test["elbo"]
    line, fade = metrics["paths"]["latent line"], metrics["paths"]["cross-fade"]
    assert max(line["log_px"] + fade["log_px"]) < 0
    # Both ways have the same ends, and the entropy of a mixture of images is at least the mean of theirs.
    assert [fade["entropy"][end] for end in (0, -1)] == pytest.approx([line["entropy"][end] for end in (0, -1)])
    assert fade["entropy"][1] >= (fade["entropy"][0] + fade["entropy"][-1]) / 2
    assert metrics["middle_gain"] == pytest.approx(line["log_px"][1] - fade["log_px"][1])
    assert f"more probable by {metrics['middle_gain']:.1f}" in capsys.readouterr().out


NOISE = 40  # standard deviation of made frames, in grey levels


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """Frames of noise alone, in which there is nothing to learn but its scale."""
    folder = tmp_path_factory.mktemp("frames")
    noise = np.random.default_rng(0).normal(127.5, NOISE, (1965, 28, 20))
    np.savez(folder / "frey_faces.npz", images=noise.round().clip(0, 255).astype(np.uint8))
    return folder


def test_frey_faces_learns_the_scale_of_the_noise(run_example, tmp_path, capsys, frames):
    sizes = ["--epochs", 25, "--latent-dims", 2]
    smaller = {"x[:: len(x) // 150]": "x[:: len(x) // 12]", "HIDDEN = (1, 28, 20), [200]": "HIDDEN = (1, 28, 20), [20]"}
    run_example("frey_faces.py", "--device", "cpu", frames, *sizes, "--out", tmp_path, smaller=smaller)
    check_pictures(tmp_path, "manifold.png", "samples.png", "reconstructions.png", "loss.png")
    numbers = json.loads((tmp_path / "metrics.json").read_text())["models"]["2 latents"]
    # Two directions of noise explain less than a hundredth of its variance, whatever they are fitted to.
    for key in ("scale", "train_error", "test_error"):
        assert numbers[key] == pytest.approx(NOISE, rel=0.005)
    # The entropy of a normal, rounded to levels much finer than its scale.
    bits = np.log2(NOISE * np.sqrt(2 * np.pi * np.e))
    for part in ("train", "test"):
        assert numbers[f"{part}_elbo"] <= numbers[f"{part}_log_px"] + numbers[f"{part}_log_px_error"]
        assert numbers[f"{part}_bits_per_pixel"] == pytest.approx(bits, abs=0.05)
    assert f"{numbers['scale']:.2f}" in capsys.readouterr().out
