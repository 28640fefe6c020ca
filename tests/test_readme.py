"""What the README says works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pyro_vae import likelihoods, nn, posteriors, priors

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_its_code_runs_from_top_to_bottom(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 5
    code = "\n".join(blocks)
    # As it stands, but for the size of the data.
    code = code.replace("for x in batches:", "for x in list(batches)[:5]:")
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "log p(x) = " in out
    assert "All estimates of the ELBO agree." in out


def test_ci_runs_its_test_command():
    commands = re.findall(r"```sh\n(.*?)\n```", README)
    assert commands == [
        "pip install -e '.[test]' && python examples/mnist_svi.py",
        "pip install -e '.[test]' && pytest",
    ]
    assert [line for line in README.splitlines() if line.endswith("&& pytest")] == commands[1:]
    assert """bash -c "$(grep '&& pytest$' README.md)\"""" in (ROOT / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/parts.md"])
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text()):
        assert target.startswith("http") or ((ROOT / name).parent / target).exists(), target


def test_the_list_of_parts_is_complete():
    """Every public part has a row, and its example runs."""
    text = (ROOT / "docs" / "parts.md").read_text()
    for kind in (likelihoods, nn, posteriors, priors):
        for name in kind.__all__:
            assert f"`{name}(" in text, name
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "parts.md", "exec"), {})
