"""Fails if a page of the built site has a link, an anchor or a picture that leads nowhere.

Run: python docs/check_links.py docs/_build/html

Addresses of other sites are only checked for their form: ``python -m sphinx -b linkcheck docs FOLDER`` opens them.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ATTRIBUTES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what a tag refers to, and how it can be referred to."""
        for name, value in attrs:
            if name == ATTRIBUTES.get(tag) and value:
                self.links.add(value)
            elif name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")


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
    """Prints what leads nowhere, and returns 1 if there is such a link."""
    (folder,) = sys.argv[1:]
    dead = dead_links(Path(folder))
    print("\n".join([*dead, f"{len(dead)} dead links"]))
    return min(1, len(dead))


if __name__ == "__main__":
    sys.exit(main())
