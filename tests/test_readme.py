"""What the README and the pages of docs say is so; ``test_pages.py`` runs their code."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from pyro_vae import likelihoods, nn, posteriors, priors

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
THREATS = (ROOT / "docs" / "threat_model.md").read_text()


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
        "benchmarks/README.md",
        *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "benchmarks.md"),
    ],
)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
        assert target.startswith("http") or ((ROOT / name).parent / target).exists(), target


def test_the_list_of_parts_is_complete():
    """Every public part has a row."""
    text = (ROOT / "docs" / "parts.md").read_text()
    for kind in (likelihoods, nn, posteriors, priors):
        for name in kind.__all__:
            assert f"`{name}(" in text or isinstance(getattr(kind, name), ModuleType), name


def test_every_example_is_to_be_found():
    """In the README or in the gallery, by the command that runs it."""
    text = README + (ROOT / "docs" / "gallery.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"python examples/{path.name}" in text, path.name
