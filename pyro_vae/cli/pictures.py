"""Picture files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from pyro_vae.system.files import replace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a figure as a PNG file, and returns the path.

    Raises:
        OSError: If it cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, dpi=150, format="png")
    replace(path, content.getvalue())
    return path
