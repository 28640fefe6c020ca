"""Tutorials are notebooks that the site executes. Here only their form is tested."""

import ast
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
TUTORIALS = sorted(FOLDER.glob("[0-9]*.md"))
HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# """
CELL = re.compile(r"^```\{code-cell\}\n((?::[^\n]*\n)*)(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the documentation is not in this installation")


def test_the_list_has_all_tutorials():
    listed = (FOLDER / "index.md").read_text()
    for path in TUTORIALS:
        assert f"({path.name})" in listed, path.name
        assert re.search(rf"^{path.stem}$", listed, re.MULTILINE), path.name
    assert TUTORIALS


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_a_notebook_without_typed_output(path):
    text = path.read_text()
    assert text.startswith(HEADER)
    prose, cells = CELL.sub("", text), CELL.findall(text)
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1, "expected one title"
    assert "## What to read next" in prose
    assert cells
    for _, code in cells:
        if code.startswith("%%bash\n"):  # commands for a terminal
            assert code.splitlines()[1].startswith("pyro-vae "), code
        else:
            ast.parse(code)
    assert not re.search(r"^(Out\[|>>> |```(python|pycon)$)", prose, re.MULTILINE), (
        "code or output that is not executed"
    )


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_links_of_a_tutorial_lead_to_pages(path):
    listed = set(re.findall(r"\((\d\d_\w+\.md)\)", (FOLDER / "index.md").read_text()))
    for target in re.findall(r"\]\(([^)#:]+\.md)", path.read_text()):
        assert target in listed or (FOLDER / target).is_file(), target
