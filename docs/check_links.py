"""Fails if a page of the site has a link, an anchor or a picture that leads nowhere, or markup that was not rendered.

Run: python docs/check_links.py docs/_build/html

Addresses of other sites are only checked for their form: ``python -m sphinx -b linkcheck docs FOLDER`` opens them.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

RAW = re.compile(r":::|`|\$\$|\]\(|\{[a-z-]+\}")  # what Markdown and its directives look like, in text that is not code
CODE = ("code", "pre", "script", "style", "svg", "math")
ATTRIBUTES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}


class Page(HTMLParser):
    """The links, the anchors and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.text: list[str] = []  # without code
        self.depth = 0  # in how many tags of code it is
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what a tag refers to, and how it can be referred to."""
        self.depth += tag in CODE
        for name, value in attrs:
            if name == ATTRIBUTES.get(tag) and value:
                self.links.add(value)
            elif name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")

    def handle_endtag(self, tag: str) -> None:
        """Notes where code ends."""
        self.depth -= tag in CODE

    def handle_data(self, data: str) -> None:
        """Notes text that is not code."""
        if not self.depth:
            self.text.append(data)


def raw_markup(site: Path) -> list[str]:
    """Lines with markup that was not rendered, each with its page; those of source code are not looked at."""
    found = []
    for path in sorted(site.rglob("*.html")):
        where = path.relative_to(site)
        if where.parts[0] != "_modules":
            lines = "".join(Page(path.read_text()).text).splitlines()
            found += [f"{where}: {line.strip()}" for line in lines if RAW.search(line)]
    return found


def dead_links(site: Path) -> list[str]:
    """What leads nowhere, each with its page."""
    pages = {path.resolve(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    if not pages:
        return [f"{site} has no pages"]
    found = []
    for path, page in pages.items():
        for link in sorted(page.links):
            where = urlsplit(link)
            if where.scheme in ("http", "https"):
                works = "." in where.netloc
            elif where.scheme:
                works = where.scheme in ("data", "mailto")
            elif where.netloc:
                works = False  # such as //example.com/a.js, which a page opened from disk cannot load
            else:
                target = (path.parent / unquote(where.path)).resolve() if where.path else path
                works = target.is_file() and _has(pages.get(target), unquote(where.fragment))
            if not works:
                found.append(f"{path.relative_to(site.resolve())}: {link}")
    return found


def _has(page: Page | None, anchor: str) -> bool:
    return page is None or not anchor or anchor in page.anchors


def main() -> int:
    """Prints what leads nowhere or was not rendered, and returns 1 if there is any."""
    (folder,) = sys.argv[1:]
    dead, raw = dead_links(Path(folder)), raw_markup(Path(folder))
    print("\n".join([*dead, *raw, f"{len(dead)} dead links, {len(raw)} lines of raw markup"]))
    return int(bool(dead or raw))


if __name__ == "__main__":
    sys.exit(main())
