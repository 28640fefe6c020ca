"""What the README says works."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from pyro_vae import VAE, evidence, fit, likelihoods, nn, posteriors, priors

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
THREATS = (ROOT / "docs" / "threat_model.md").read_text()


def code_of(page):
    """Runs the blocks of a page of docs in order, and returns the names that they define."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL):
        exec(compile(block, page, "exec"), names)
    return names


def test_its_code_runs_from_top_to_bottom(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 5
    code = "\n".join(blocks)
    # As it stands, but for the size of the data.
    for size, smaller in (
        ("for x in batches:", "for x in list(batches)[:5]:"),
        ("mnist.train, 128", "mnist.train[:2560], 128"),
        ("mnist.train[:5000]", "mnist.train[:1280]"),
        ("[:1000]", "[:200]"),
        ("mnist.test[:100]", "mnist.test[:20]"),
    ):
        assert size in code
        code = code.replace(size, smaller)
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "log p(x) = " in out
    assert "All estimates of the ELBO agree." in out
    assert {path.name for path in (tmp_path / "runs" / "first").iterdir()} >= {"last.safetensors", "samples.png"}


def test_the_code_on_scaling_runs(capsys, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), flags=re.DOTALL)
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).normal(size=(20, 3)).astype(np.float32))
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Normal(nn.mlp(2, [], 3), 0.5),
        posteriors.Normal(nn.mlp(3, [], 4)),
    )
    names = {"vae": vae, "test": torch.randn(10, 3), "evidence": evidence, "torch": torch}
    for block in blocks:
        exec(compile(block, "scaling.md", "exec"), names)
    assert "log p(x) = " in capsys.readouterr().out
    files = names["Files"](sorted(tmp_path.iterdir()), names["processes"])
    run = fit(vae, names["DataLoader"](files, 8, num_workers=2, persistent_workers=True), epochs=2)
    assert run.history[-1]["step"] == 2 * (5 + 3)  # 40 rows of one worker, 20 of the other


def test_the_code_on_evidence_runs(capsys):
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "evidence.md").read_text(), flags=re.DOTALL):
        exec(compile(block, "evidence.md", "exec"), {})
    assert "certificate: on 20 datapoints" in capsys.readouterr().out


def test_the_code_on_data_runs():
    names = code_of("data.md")
    assert len(names["filled"].draws) == 50


def test_the_code_on_tools_runs(tmp_path, monkeypatch):
    for name in ("mlflow", "sqlalchemy", "optuna", "sklearn", "tensorboard", "wandb"):
        pytest.importorskip(name, reason="pip install 'pyro-vae[tensorboard,mlflow,wandb,optuna,sklearn]'")
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("docs")
    names = code_of("tools.md")
    assert {path.name for path in (tmp_path / "runs" / "logged").iterdir()} >= {"mlflow.json", "wandb.json"}
    assert len(names["study"].trials) == 3
    assert names["codes"].shape == (178, 2)


@pytest.mark.filterwarnings("ignore:the weights are saved")
def test_the_code_on_sharing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = code_of("sharing.md")
    assert {path.name for path in (tmp_path / "models" / "digits").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "reconstructions.png",
    }
    assert all(torch.equal(a, b) for a, b in zip(names["same"].parameters(), names["vae"].parameters(), strict=True))


def test_the_code_on_export_runs(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra [export], is not installed")
    monkeypatch.chdir(tmp_path)
    names = code_of("export.md")
    numpy, ours = torch.from_numpy(names["log_px"]), names["expected"]
    # Two independent estimates: the difference of their means exceeds 6 of its standard errors once in 10^8.
    assert abs(numpy.mean().item() - ours.mean) < 6 * 2**0.5 * ours.mean_std_error
    assert np.abs(names["code"] - names["vae"].encode(torch.from_numpy(names["x"])).numpy()).max() < 1e-4
    assert (
        np.abs(names["reconstructions"] - names["vae"].reconstruct(torch.from_numpy(names["x"])).numpy()).max() < 1e-4
    )
    assert names["jacobian"].abs().sum() > 0


def test_the_example_of_the_threat_model_executes_nothing(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", THREATS, flags=re.DOTALL)
    exec(compile(block, "threat_model.md", "exec"), {})
    out = capsys.readouterr().out
    assert "last.safetensors is not a checkpoint of pyro_vae, or is damaged: " in out
    assert "executed" not in out


def test_the_tests_that_the_threat_model_names_are_there():
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", THREATS)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


def test_the_messages_that_the_threat_model_quotes_are_those_of_the_package():
    source = "\n".join(path.read_text() for path in sorted((ROOT / "pyro_vae").rglob("*.py")))
    rows = re.findall(r"^\|[^|]*\|([^|]*)\| `tests/", THREATS, flags=re.MULTILINE)
    messages = [message for row in rows for message in re.findall(r"`([^`]*)`", row) if message != "CheckpointError"]
    messages += re.findall(r"`(is in use by [^`]*|would take [^`]*)`", THREATS)
    assert len(messages) > 12
    for message in messages:
        assert message in source, message


def test_ci_runs_its_test_command():
    commands = re.findall(r"```sh\n(.*?)\n```", README)
    assert commands == [
        "pip install -e '.[test]' && python examples/mnist_svi.py",
        "pip install -e '.[test]' && pytest",
    ]
    assert [line for line in README.splitlines() if line.endswith("&& pytest")] == commands[1:]
    assert """bash -c "$(grep '&& pytest$' README.md)\"""" in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/data.md",
        "docs/evidence.md",
        "docs/explorer.md",
        "docs/export.md",
        "docs/gallery.md",
        "docs/objectives.md",
        "docs/parts.md",
        "docs/representation.md",
        "docs/scaling.md",
        "docs/sharing.md",
        "docs/threat_model.md",
        "docs/tools.md",
        "benchmarks/README.md",
    ],
)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
        assert target.startswith("http") or ((ROOT / name).parent / target).exists(), target


def test_the_list_of_parts_is_complete():
    """Every public part has a row, and its example runs."""
    text = (ROOT / "docs" / "parts.md").read_text()
    for kind in (likelihoods, nn, posteriors, priors):
        for name in kind.__all__:
            assert f"`{name}(" in text or isinstance(getattr(kind, name), ModuleType), name
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "parts.md", "exec"), {})


def test_every_example_is_to_be_found():
    """In the README or in the gallery, by the command that runs it."""
    text = README + (ROOT / "docs" / "gallery.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"python examples/{path.name}" in text, path.name
