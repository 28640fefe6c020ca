"""``pyro-vae plot``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from torch import Tensor
from tyro.conf import Positional, arg

from pyro_vae import VAE, load, plots
from pyro_vae.cli.data import Data
from pyro_vae.cli.pictures import is_image, save_figure
from pyro_vae.cli.run_files import data_of, folder_of
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder
from pyro_vae.training.logs.drawing import codes, reconstructions, samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Plot"]

MAX_CODES = 10_000


@dataclass(frozen=True)
class Plot:
    """Draws reconstructions of test data, samples, and the losses; of two latent dimensions, manifold and codes."""

    run: Positional[Path]
    """Folder of the run, of which the best weights are taken; or one of its checkpoints."""
    data: Annotated[Data, arg(name="")]
    out: Path | None = None
    """Folder for the pictures; by default that of the run."""
    device: str | None = None
    """Such as cpu or cuda:1; by default the GPU if there is one."""

    def __call__(self) -> None:
        """Draws.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If the data are not what the VAE takes.
            OSError: If the folder cannot be written to, or something cannot be read.
        """
        device, folder = choose_device(self.device), folder_of(self.run)
        vae = load(self.run).to(device)
        out = writable_folder(self.out or folder)
        data = data_of(self.run, self.data)
        splits = data.load()
        test = data.binarized(splits.test[:MAX_CODES])
        vae.check(test.to(device))
        figures = _figures(vae, test, splits.test_labels)
        losses = _losses(folder / "history.csv")
        if losses:
            figures["curves"] = plots.curves(losses)
        for name, figure in figures.items():
            print(f"wrote {save_figure(figure, out / f'{name}.png')}")


def _figures(vae: Any, test: Tensor, labels: Tensor | None) -> dict[str, Figure]:
    """Pictures of what the weights do with test data ``[n, *event]``, by name."""
    figures = {}
    if is_image(vae.event_shape):
        figures["samples"], figures["reconstructions"] = samples(vae, test), reconstructions(vae, test)
    if isinstance(vae, VAE) and tuple(vae.latent_shape) == (2,):
        figures["codes"] = plots.codes(codes(vae, test)["z"], None if labels is None else labels[: len(test)])
        if is_image(vae.event_shape):
            figures["manifold"] = plots.manifold(vae.likelihood)
    return figures


def _losses(history: Path) -> dict[str, list[float]]:
    """The losses of each epoch, by name; none, if there is no history yet."""
    if not history.exists():
        return {}
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {"train": "train_loss", "valid": "valid_loss"}
    return {
        name: [float(row[column]) for row in rows] for name, column in columns.items() if rows and column in rows[0]
    }
