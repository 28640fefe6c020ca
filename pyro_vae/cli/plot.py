"""``pyro-vae plot``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pyro_vae
from pyro_vae.checks import is_image
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.on_run import OnRun
from pyro_vae.cli.pictures import save_figure
from pyro_vae.cli.run_files import folder_of, rows_of, seen_of
from pyro_vae.system.files import writable_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


MAX_CODES = 10_000
SERIES = 20  # in a picture


@dataclass(frozen=True, kw_only=True)
class Plot(OnRun):
    """Draws samples, reconstructions of test data, and losses; with two latent dimensions, manifold and codes.

    For a table, it draws the distribution of each column in the data and in samples from the model.
    """

    out: Annotated[Path | None, by_default("the folder of the run")] = None
    """Folder for the pictures."""

    def __call__(self) -> None:
        """Draws the pictures.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If the data do not fit the VAE.
            OSError: If the folder cannot be written to, or something cannot be read.
        """
        vae, data = self.open()
        from pyro_vae.training.logs import drawing

        folder = folder_of(self.run)
        out = writable_folder(self.out or folder)
        seen = seen_of(self.run, data, self.data)
        test, labels = rows_of(seen, data, "test", lambda _: slice(MAX_CODES), vae)
        vae.check(test.to(next(vae.parameters()).device))
        figures = _figures(vae, test, labels)
        if seen.table is not None:
            rows = rows_of(seen, data, "all", lambda _: slice(MAX_CODES), vae)[0]
            samples = drawing.drawn(vae, MAX_CODES)[0]
            figures["columns"] = pyro_vae.plots.columns(seen.table.frame(rows), seen.table.frame(samples))
        losses = _losses(folder / "history.csv")
        if losses:
            figures["curves"] = pyro_vae.plots.curves(losses)
        for name, figure in figures.items():
            print(f"wrote {save_figure(figure, out / f'{name}.png')}")


def _figures(vae: Any, test: Tensor, labels: Tensor | None) -> dict[str, Figure]:
    """Pictures of a model and test data ``[n, *event]``, by file name."""
    from pyro_vae.training.logs.drawing import codes, drawn, reconstructions, samples

    figures = {}
    if is_image(vae.event_shape):
        figures["samples"], figures["reconstructions"] = samples(vae, test), reconstructions(vae, test)
    elif len(vae.event_shape) == 2:
        some = test[:SERIES].to(next(vae.parameters()).device)
        figures["samples"] = pyro_vae.plots.series(*drawn(vae, SERIES), title="samples x ~ p(x), and means of p(x | z)")
        title = "test data, and means of p(x | z) at their codes"
        figures["reconstructions"] = pyro_vae.plots.series(some, vae.reconstruct(some), title=title)
    planes = {site: z for site, z in codes(vae, test).items() if z.shape[1] == 2}
    for site, z in planes.items():
        name = "codes" if site == "z" else f"codes_{site}"
        figures[name] = pyro_vae.plots.codes(z, None if labels is None else labels[: len(test)])
    if "z" in planes and is_image(vae.event_shape):
        figures["manifold"] = pyro_vae.plots.manifold(vae.likelihood)
    return figures


def _losses(history: Path) -> dict[str, list[float]]:
    """The losses of each epoch, by name; empty if there is no history yet."""
    if not history.exists():
        return {}
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {"train": "train_loss", "valid": "valid_loss"}
    return {
        name: [float(row[column]) for row in rows] for name, column in columns.items() if rows and column in rows[0]
    }
