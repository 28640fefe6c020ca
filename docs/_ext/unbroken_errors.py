"""A number stays on one line with its error: ``-91.41 +- 0.02`` has no-break spaces on the site."""

import re
from typing import Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

PLUS_MINUS = re.compile(r"\s+\+-\s+")
CODE = (nodes.literal, nodes.literal_block, nodes.doctest_block, nodes.math, nodes.math_block, nodes.raw)


def unbroken(text: str) -> str:
    """The text with no-break spaces around each ``+-`` between spaces."""
    return PLUS_MINUS.sub("\N{NO-BREAK SPACE}+-\N{NO-BREAK SPACE}", text)


class UnbrokenErrors(SphinxPostTransform):
    """Puts them into all text that is not code."""

    default_priority = 900  # after references are resolved
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Replaces the text nodes."""
        for text in list(self.document.findall(nodes.Text)):
            if "+-" in text and not isinstance(text.parent, CODE):
                text.parent.replace(text, nodes.Text(unbroken(text)))


def setup(app: Any) -> dict[str, bool]:
    """Adds the transform."""
    app.add_post_transform(UnbrokenErrors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
