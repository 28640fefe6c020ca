"""Links of a page to a file of the repository that has a page of its own here, and the version to cite.

The Markdown files are read in two places: in the repository, where ``../CONTRIBUTING.md`` is a file, and on the site,
where its page is ``contributing.md``.
"""

from __future__ import annotations

from sphinx.application import Sphinx

PAGES = {
    "](../CONTRIBUTING.md": "](contributing.md",
    "](../CHANGELOG.md": "](changelog.md",
    "](../README.md": "](index.md",
    "](../benchmarks/README.md": "](benchmarks.md",
    "](../benchmarks/results/": "](results/",
}


def rewrite(app: Sphinx, docname: str, source: list[str]) -> None:
    """Changes the targets in the text of a page."""
    if docname == "citing":
        source[0] = source[0].replace("{VERSION}", f"{{{app.config.release}}}")
    for there, here in PAGES.items():
        source[0] = source[0].replace(there, here)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects the change to Sphinx."""
    app.connect("source-read", rewrite)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
