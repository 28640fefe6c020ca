"""``pyro-vae explore``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pyro_vae
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.on_run import OnRun
from pyro_vae.cli.run_files import folder_of, rows_of, seen_of, table_of
from pyro_vae.system.files import writable_folder


@dataclass(frozen=True, kw_only=True)
class Explore(OnRun):
    """Writes a page to explore the VAE in the browser: one HTML file that needs no server and no network."""

    out: Annotated[Path | None, by_default("explorer.html in the folder of the run")] = None
    """File for the page, .html."""
    split: Literal["test", "valid", "train", "all"] = "test"
    """Part of the data to use."""
    points: int = 2000
    """Largest number of datapoints on the page, drawn at random."""
    map: Literal["pca", "umap"] = "pca"
    """Projection of more than two latents to a plane; umap needs pip install 'pyro-vae[umap]'."""
    lowest: int = 24
    """Number of datapoints to show with the lowest log p(x); 0: log p(x) is not computed."""
    title: Annotated[str | None, by_default("the name of the folder of the run")] = None
    """Title of the page."""
    seed: int = 0
    """Random seed."""

    def __call__(self) -> None:
        """Writes the page.

        Raises:
            CheckpointError: If the run cannot be loaded.
            TypeError: If the model is not a VAE with one vector of latents.
            ValueError: If an option is invalid, the data do not fit the VAE, or its decoder cannot run in a browser.
            OSError: If a file cannot be written or read.
        """
        if self.out is not None and self.out.suffix != ".html":
            raise ValueError(f"--out is {str(self.out)!r}; expected a file .html")
        vae, data = self.open()
        import torch

        folder = folder_of(self.run)
        out = self.out or writable_folder(folder) / "explorer.html"
        seen = seen_of(self.run, data, self.data)
        x, labels = rows_of(seen, data, self.split, slice, vae)
        torch.manual_seed(self.seed)
        part = "all data" if self.split == "all" else f"{self.split} data"
        pyro_vae.explorer.write(
            vae,
            x.to(next(vae.parameters()).device),
            out,
            labels=labels,
            names_of_labels=seen.classes or None,
            table=table_of(self.run),
            method=self.map,
            points=self.points,
            lowest=self.lowest,
            title=self.title or folder.resolve().name,
            subtitle=f"{part} of {Path(str(data.data)).name}",
        )
        print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB); open it in a browser")
