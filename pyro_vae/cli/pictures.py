"""Pictures as files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_vae.system.files import replace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["is_image", "save_figure"]


def is_image(event: Sequence[int]) -> bool:
    """Whether this is the shape of an image that can be drawn, ``(1 or 3, height, width)``."""
    return len(event) == 3 and event[0] in (1, 3)


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes it as a PNG, and returns the path.

    Raises:
        OSError: If it cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    replace(path, content.getvalue())
    return path
