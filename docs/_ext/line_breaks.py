"""Where lines of the site may end, so that what belongs together stays together on a phone and in tables.

- A number stays with its error: ``-91.41 +- 0.02`` has no-break spaces.
- A word of code, such as ``--latent-dim``, is not broken at its hyphens, unless it is too long for a line of a phone.
- A title such as ``pyro_vae.likelihoods.columns`` is broken after a dot.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

LONGEST = 36  # characters of a word of code in a line of a phone
PLUS_MINUS = re.compile(r"\s+\+-\s+")
CODE = (nodes.literal, nodes.literal_block, nodes.doctest_block, nodes.math, nodes.math_block, nodes.raw)
NO_BREAK, JOINER, MAY_BREAK = "\N{NO-BREAK SPACE}", "\N{WORD JOINER}", "\N{ZERO WIDTH SPACE}"


def with_error(text: str) -> str:
    """The text with no-break spaces around each ``+-`` between spaces; a joiner forbids the break after its hyphen."""
    return PLUS_MINUS.sub(f"{NO_BREAK}+-{JOINER}{NO_BREAK}", text)


class LineBreaks(SphinxPostTransform):
    """Changes text, and marks code for ``site.css``."""

    default_priority = 900  # after references are resolved
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Replaces the text nodes."""
        for text in list(self.document.findall(nodes.Text)):
            if "+-" in text and not isinstance(text.parent, CODE):
                text.parent.replace(text, nodes.Text(with_error(text)))
            elif isinstance(text.parent, nodes.title) and " " not in text and "." in text:
                text.parent.replace(text, nodes.Text(text.replace(".", f".{MAY_BREAK}")))
        for code in self.document.findall(nodes.literal):
            if max(map(len, code.astext().split()), default=0) <= LONGEST:
                code["classes"].append("unbroken")


def setup(app: Any) -> dict[str, bool]:
    """Adds the transform."""
    app.add_post_transform(LineBreaks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
