"""Formulas as MathML, which browsers draw themselves: no JavaScript, no fonts to load, no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.math import get_node_equation_number

BEFORE = re.compile(r"(?<=</m[in]>)(?=<mi>(?:log|exp|max|min)</mi>)")
AFTER = re.compile(r"(?<=<mi>(?:log|exp|max|min)</mi>)(?=<m[inrs])")
SPACE = '<mspace width="0.17em" />'
WORD_JOINER = "\N{WORD JOINER}"  # Browsers may break a line after a formula, even before a full stop. This forbids it.


def mathml(latex: str, display: str) -> str:
    """The formula as MathML, with the spaces around names of functions that LaTeX would write."""
    return AFTER.sub(SPACE, BEFORE.sub(SPACE, convert(latex, display=display)))


def inline(translator: Any, node: nodes.math) -> None:
    """Writes a formula within a line."""
    translator.body.append(mathml(node.astext(), "inline") + WORD_JOINER)
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """Writes a formula on its own line, with its number if it has one."""
    translator.body.append(translator.starttag(node, "div", CLASS="math-block"))
    translator.body.append(mathml(node.astext(), "block"))
    if node.get("number"):
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the renderer and makes it the one that is used."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
