"""The HTML page: its files combined into one, so that no text of the user can become code."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from typing import Any

# In this order: each may use the names of those before it.
SCRIPTS = (
    "kernels.js",
    "decoder.js",
    "content.js",
    "marks.js",
    "pictures.js",
    "state.js",
    "map.js",
    "now.js",
    "sliders.js",
    "interpolation.js",
    "lowest.js",
    "page.js",
)


def page(title: str, content: dict[str, Any], arrays: str) -> str:
    """Makes the page.

    Args:
        title: Its title.
        content: What the page shows, as JSON.
        arrays: The numbers, as base64.
    """
    style, script = asset("style.css"), "\n".join(["(() => {", '"use strict";', *map(asset, SCRIPTS), "})();"])
    # The page may run its own script and style, of which these are the hashes, and load nothing.
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(title),
        "style": style,
        "content": _json(content),
        "arrays": arrays,
        "script": script,
    }
    # Each {{name}} is replaced, once: inserted text is not searched again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], asset("page.html"))


def asset(name: str) -> str:
    """A file of the page."""
    return files("pyro_vae.explorer").joinpath("assets", name).read_text(encoding="utf-8")


def _json(content: dict[str, Any]) -> str:
    """JSON that can be in a script element: no character in it is one of HTML, or a line separator of JavaScript."""
    return json.dumps(content, allow_nan=False).replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
