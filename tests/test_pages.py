"""The code on the pages runs: every ``python`` block of the README and of docs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_vae import VAE, evidence, fit, likelihoods, nn, posteriors, priors

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def blocks(page):
    """Its blocks of Python; those marked ``python notest`` are left out."""
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


# What is replaced, so that the code takes less time: the size of the data, and the length of runs.
SMALLER = {
    "README.md": [
        ("for x in batches:", "for x in list(batches)[:5]:"),
        ("mnist.train, 128", "mnist.train[:2560], 128"),
        ("fit(vae, mnist.train, valid,", "fit(vae, mnist.train[:640], valid[:100],"),
        ("mnist.test[:100]", "mnist.test[:8]"),
    ],
    "docs/index.md": [("[:5000]", "[:500]"), ("images[:20]", "images[:3]")],
    "docs/evidence.md": [("range(8)", "range(3)")],
    "docs/fast_svi.md": [("mnist.train, 128", "mnist.train[:2560], 128")],
    "docs/explorer.md": [
        ("mnist.test)", "mnist.test[:40])"),
        ("mnist.test_labels", "mnist.test_labels[:40]"),
        ("points=100, lowest=2", "points=40, lowest=0"),
    ],
    "docs/export.md": [("mnist.train[:5000]", "mnist.train[:1000]")],
    "docs/training.md": [("mnist.train[:5000]", "mnist.train[:1280]"), ("[:1000]", "[:200]")],
    "docs/tools.md": [
        ("mnist.train[:500]", "mnist.train[:100]"),
        ("epochs=20,", "epochs=3,"),
        ("epochs=5, num_samples=50", "epochs=2, num_samples=10"),
        ("score_samples(X[:20])", "score_samples(X[:5])"),
        ("evidence(X[:20])", "evidence(X[:5])"),
    ],
    "docs/representation.md": [("[:5000]", "[:500]"), ("[:1000]", "[:200]"), ("sample((1000,))", "sample((200,))")],
}


def run(page, folder, monkeypatch, names=None):
    """Runs the blocks of a page in a folder, and returns the names that they define."""
    monkeypatch.chdir(folder)
    code = "\n".join(blocks(page))
    for size, smaller in SMALLER.get(page, ()):
        assert size in code
        code = code.replace(size, smaller)
    names = names or {}
    exec(compile(code, page, "exec"), names)
    return names


# Their tests are below, and check more than that the code runs.
CHECKED = [
    "README",
    "data",
    "evidence",
    "export",
    "representation",
    "scaling",
    "sharing",
    "threat_model",
    "tools",
    "training",
]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page) and Path(page).stem not in CHECKED])
def test_its_code_runs(page, tmp_path, monkeypatch):
    run(page, tmp_path, monkeypatch)


def test_the_code_of_the_readme(capsys, tmp_path, monkeypatch):
    assert len(blocks("README.md")) >= 3
    run("README.md", tmp_path, monkeypatch)
    out = capsys.readouterr().out
    assert "log p(x) = " in out
    assert "All estimates of the ELBO agree." in out
    assert (tmp_path / "runs" / "first" / "last.safetensors").exists()


def test_the_code_on_training(tmp_path, monkeypatch):
    run("docs/training.md", tmp_path, monkeypatch)
    assert {path.name for path in (tmp_path / "runs" / "first").iterdir()} >= {"last.safetensors", "samples.png"}


def test_the_code_on_representation(capsys, tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="scikit-learn, of the extra [representation], is not installed")
    run("docs/representation.md", tmp_path, monkeypatch)
    assert len(capsys.readouterr().out.splitlines()) >= 5


def test_the_code_on_scaling(capsys, tmp_path, monkeypatch):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).normal(size=(20, 3)).astype(np.float32))
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Normal(nn.mlp(2, [], 3), 0.5),
        posteriors.Normal(nn.mlp(3, [], 4)),
    )
    given = {"vae": vae, "test": torch.randn(10, 3), "evidence": evidence, "torch": torch}
    names = run("docs/scaling.md", tmp_path, monkeypatch, given)
    assert "log p(x) = " in capsys.readouterr().out
    files = names["Files"](sorted(tmp_path.glob("*.npy")), names["processes"])
    loader = names["DataLoader"](
        files,
        8,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context="fork",  # the class is in no module
    )
    trained = fit(vae, loader, epochs=2)
    assert trained.history[-1]["step"] == 2 * (5 + 3)  # 40 rows of one worker, 20 of the other


def test_the_code_on_evidence(capsys, tmp_path, monkeypatch):
    run("docs/evidence.md", tmp_path, monkeypatch)
    assert "certificate: on 20 datapoints" in capsys.readouterr().out


def test_the_code_on_data(tmp_path, monkeypatch):
    names = run("docs/data.md", tmp_path, monkeypatch)
    assert len(names["filled"].draws) == 50


def test_the_code_on_tools(tmp_path, monkeypatch):
    for name in ("mlflow", "sqlalchemy", "optuna", "sklearn", "tensorboard", "wandb"):
        pytest.importorskip(name, reason="pip install 'pyro-vae[tensorboard,mlflow,wandb,optuna,sklearn]'")
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("docs")
    names = run("docs/tools.md", tmp_path, monkeypatch)
    assert {path.name for path in (tmp_path / "runs" / "logged").iterdir()} >= {"mlflow.json", "wandb.json"}
    assert len(names["study"].trials) == 3
    assert names["codes"].shape == (178, 2)


@pytest.mark.filterwarnings("ignore:the weights are saved")
def test_the_code_on_sharing(tmp_path, monkeypatch):
    names = run("docs/sharing.md", tmp_path, monkeypatch)
    assert {path.name for path in (tmp_path / "models" / "digits").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "reconstructions.png",
    }
    assert all(torch.equal(a, b) for a, b in zip(names["same"].parameters(), names["vae"].parameters(), strict=True))


def test_the_code_on_export(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra [export], is not installed")
    names = run("docs/export.md", tmp_path, monkeypatch)
    numpy, ours = torch.from_numpy(names["log_px"]), names["expected"]
    # Two independent estimates: the difference of their means exceeds 6 of its standard errors once in 10^8.
    assert abs(numpy.mean().item() - ours.mean) < 6 * 2**0.5 * ours.mean_std_error
    assert np.abs(names["code"] - names["vae"].encode(torch.from_numpy(names["x"])).numpy()).max() < 1e-4
    assert (
        np.abs(names["reconstructions"] - names["vae"].reconstruct(torch.from_numpy(names["x"])).numpy()).max() < 1e-4
    )
    assert names["jacobian"].abs().sum() > 0


def test_the_example_of_the_threat_model_executes_nothing(capsys, tmp_path, monkeypatch):
    assert len(blocks("docs/threat_model.md")) == 1
    run("docs/threat_model.md", tmp_path, monkeypatch)
    out = capsys.readouterr().out
    assert "last.safetensors is not a checkpoint of pyro_vae, or is damaged: " in out
    assert "executed" not in out


def test_every_page_with_a_test_of_its_own_has_code():
    assert set(CHECKED) <= {Path(page).stem for page in PAGES if blocks(page)}
