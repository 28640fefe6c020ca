"""Picture files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyro_vae
from pyro_vae.system.files import replace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Writes a figure as a PNG file, and returns the path.

    Raises:
        OSError: If it cannot be written.
    """
    replace(path, pyro_vae.plots.png(figure, 150))
    return path
