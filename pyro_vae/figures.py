"""Figures of matplotlib, which takes half a second to import: not before one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure"]


def new_figure(**options: Any) -> Figure:
    """Returns ``matplotlib.figure.Figure(**options)``, which needs no display."""
    from matplotlib.figure import Figure

    return Figure(**options)
