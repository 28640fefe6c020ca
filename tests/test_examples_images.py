"""The examples on images, at a small size: laws that their numbers obey at any size, and files that are pictures."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(monkeypatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments), "--device", "cpu"])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def check_pictures(folder: Path, *names: str) -> None:
    assert {path.name for path in folder.iterdir()} == {*names, "metrics.json"}
    for name in names:
        with Image.open(folder / name) as image:
            assert image.format == Path(name).suffix[1:].upper()


def test_latent_space_2d(monkeypatch, tmp_path, capsys):
    sizes = ["--epochs", 2, "--images", 400, "--test-images", 20, "--codes", 50, "--pairs", 4, "--steps", 3]
    run(monkeypatch, "latent_space_2d.py", *sizes, "--num-samples", 10, "--out", tmp_path)
    check_pictures(
        tmp_path, "training.gif", "manifold.png", "codes.png", "interpolation.png", "interpolation_log_px.png"
    )
    with Image.open(tmp_path / "training.gif") as gif:
        assert gif.n_frames == 1 + 2
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    test = metrics["test"]
    assert test["elbo"] == pytest.approx(-test["distortion"] - test["rate"])
    assert test["rate"] > 0
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


def test_frey_faces_learns_the_scale_of_the_noise(monkeypatch, tmp_path, capsys, frames):
    sizes = ["--epochs", 25, "--num-samples", 10, "--latent-dims", 2]
    run(monkeypatch, "frey_faces.py", frames, *sizes, "--out", tmp_path)
    check_pictures(tmp_path, "manifold.png", "samples.png", "reconstructions.png", "loss.png")
    numbers = json.loads((tmp_path / "metrics.json").read_text())["models"]["2 latents"]
    # Two directions of noise explain less than a hundredth of its variance, whatever they are fitted to.
    for key in ("scale", "train_error", "test_error"):
        assert numbers[key] == pytest.approx(NOISE, rel=0.005)
    # The entropy of a normal, rounded to levels much finer than its scale.
    bits = np.log2(NOISE * np.sqrt(2 * np.pi * np.e))
    for part in ("train", "test"):
        assert numbers[f"{part}_elbo"] <= numbers[f"{part}_log_px"]
        assert numbers[f"{part}_bits_per_pixel"] == pytest.approx(bits, abs=0.05)
    assert f"{numbers['scale']:.2f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("latent_space_2d.py", ["--epochs", "0"], "argument --epochs: '0' is not an integer of at least 1"),
        ("latent_space_2d.py", ["--steps", "2"], "argument --steps: '2' is not an integer of at least 3"),
        ("latent_space_2d.py", ["--pairs", "1"], "argument --pairs: '1' is not an integer of at least 2"),
        ("latent_space_2d.py", ["--out", EXAMPLES / "latent_space_2d.py"], "cannot write to the folder"),
        ("frey_faces.py", ["nowhere"], "nowhere holds neither frey_faces.npz nor frey_rawface.mat; it can be had from"),
        (
            "frey_faces.py",
            ["nowhere", "--latent-dims", "0"],
            "argument --latent-dims: '0' is not an integer of at least 1",
        ),
        ("frey_faces.py", [], "the following arguments are required: FOLDER"),
    ],
)
def test_bad_arguments_end_it_at_once_with_one_line(monkeypatch, tmp_path, capsys, name, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, name, *arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
