"""The documentation site has every public name, and its checker sees what leads nowhere or was not rendered."""

import inspect
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
sys.path[:0] = [str(DOCS), str(DOCS / "_ext")]

from check_links import dead_links, raw_markup  # noqa: E402
from public import public_modules, public_names  # noqa: E402


def listed():
    """The names that the pages of the API reference list, in their autosummary tables."""
    for page in (DOCS / "api").glob("*.rst"):
        module = ""
        for line in page.read_text().splitlines():
            if line.startswith(".. currentmodule:: "):
                module = line.removeprefix(".. currentmodule:: ")
            elif match := re.fullmatch(r"(?:   |\.\. py:data:: )([\w.]+)", line):
                yield f"{module}.{match[1]}"


def test_every_public_name_is_in_the_api_reference():
    """Under one of its public names, if it has several."""
    public, pages = public_names(), list(listed())
    assert len(public) > 150
    shown = {id(public[name]) for name in pages if name in public}
    assert not [name for name, value in public.items() if id(value) not in shown]
    assert len(pages) == len(set(pages))


def test_every_picture_has_a_description():
    """For those who do not see it."""
    pages = [DOCS.parent / "README.md", *DOCS.rglob("*.md")]
    assert sum("![" in page.read_text() for page in pages) > 3
    assert not [page.name for page in pages if "![](" in page.read_text()]


def test_every_public_package_has_a_page_that_is_reached():
    pages = {path.stem for path in (DOCS / "api").glob("*.rst")}
    assert pages == set(public_modules())
    index = (DOCS / "api" / "index.md").read_text().splitlines()
    assert [name for name in index if name in pages] == [name for name in index if name.startswith("pyro_vae")]
    assert pages <= set(index)


def test_no_docstring_of_a_property_begins_like_a_type():
    """In "Whether k-hat is above 0.7: do not trust it", Sphinx takes the words before the colon for the type."""
    classes = {value for value in public_names().values() if isinstance(value, type)}
    assert len(classes) > 50
    found = set()
    for kind in classes:
        for name in dir(kind):
            value = inspect.getattr_static(kind, name)
            first = (inspect.getdoc(value) or "").partition("\n")[0]
            if isinstance(value, property) and not name.startswith("_") and re.search(r":(?= |$)", first):
                found |= {value.fget.__qualname__} if value.fget.__module__.startswith("pyro_vae") else set()
    assert not found


def test_every_page_is_in_a_table_of_contents():
    contents = (DOCS / "index.md").read_text().splitlines()
    for path in DOCS.glob("*.md"):
        assert path.stem in (*contents, "index"), path.name


@pytest.mark.parametrize(
    ("link", "works"),
    [
        ('<a href="b.html#there">', True),
        ('<a href="b.html#elsewhere">', False),
        ('<a href="c.html">', False),
        ('<a href="#here">', True),
        ('<a href="#nowhere">', False),
        ('<img src="a.png">', True),
        ('<img src="b.png">', False),
        ('<a href="https://example.com/x#y">', True),
        ('<a href="https://typo">', False),
        ('<a href="htp://example.com">', False),
        ('<script src="//example.com/a.js">', False),
    ],
)
def test_the_link_checker_sees_what_leads_nowhere(tmp_path, link, works):
    (tmp_path / "a.html").write_text(f'<p id="here"></p>{link}')
    (tmp_path / "b.html").write_text('<p id="there"></p>')
    (tmp_path / "a.png").write_bytes(b"")
    assert bool(dead_links(tmp_path)) != works


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("<p>a<br>b: c</p>", True),
        ("<p>:::{grid-item-card} Start</p>", False),
        ("<p>see `fit`</p>", False),
        ("<p>see {ref}</p>", False),
        ("<p>[a](b.md)</p>", False),
        ("<p>$$x$$</p>", False),
        ("<pre>::: <span>`a`</span> ]( {b}</pre><p>c</p>", True),
        ("<p><code>{n}</code></p><p>{n}</p>", False),
    ],
)
def test_the_checker_sees_markup_that_was_not_rendered(tmp_path, text, rendered):
    (tmp_path / "a.html").write_text(text)
    assert bool(raw_markup(tmp_path)) != rendered


@pytest.mark.parametrize("text", ["-91.41 +- 0.02 nats", "-91.41\n+-  0.02 nats"])
def test_a_number_and_its_error_stay_on_one_line(text):
    pytest.importorskip("sphinx", reason="the site is built with sphinx")
    from line_breaks import with_error

    assert with_error(text) == "-91.41\N{NO-BREAK SPACE}+-\N{WORD JOINER}\N{NO-BREAK SPACE}0.02 nats"


def test_a_site_without_pages_is_no_success(tmp_path):
    assert dead_links(tmp_path)
