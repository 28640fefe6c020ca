"""``pyro-vae sample``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

import pyro_vae
from pyro_vae.checks import check_count, is_image
from pyro_vae.cli.columns_file import as_npy
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.pictures import save_figure
from pyro_vae.cli.run_files import folder_of, table_of
from pyro_vae.saving.file_names import checkpoint_of
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import replace, writable_folder

if TYPE_CHECKING:
    from torch import Tensor


ROWS = 1000  # to decode at once


@dataclass(frozen=True)
class Sample:
    """Draws samples x from the model: a picture of them and of the means of p(x | z), and a file with their values."""

    run: Positional[Path]
    """Folder of a run (to use its best weights) or of a saved model; or one checkpoint file."""
    count: int = 100
    """Number of samples."""
    picture: Annotated[Path | None, by_default("samples.png in the folder of the run")] = None
    """PNG file for the picture, if the data are images."""
    draws: Annotated[Path | None, by_default("none")] = None
    """File for the values: .npy for the samples x, .csv for a table, .safetensors for x, z and means of p(x | z)."""
    seed: int = 0
    """Random seed."""
    device: Annotated[str | None, by_default("the GPU if there is one")] = None
    """Device, such as cpu or cuda:1."""

    def __call__(self) -> None:
        """Draws the samples.

        Raises:
            CheckpointError: If the run cannot be loaded.
            TypeError: If the model has conditions, which this command cannot take.
            ValueError: If an option is invalid, or there is nothing to write.
            OSError: If a file cannot be written.
        """
        check_count("--count", self.count)
        if self.draws is not None and self.draws.suffix not in (".npy", ".safetensors", ".csv"):
            raise ValueError(
                f"--draws is {str(self.draws)!r}; expected a file .npy or .safetensors, or .csv for a table"
            )
        checkpoint_of(self.run)
        import torch
        from safetensors.torch import save

        device = choose_device(self.device)
        vae = pyro_vae.load(self.run).to(device)
        table = table_of(self.run)
        if table is None and self.draws is not None and self.draws.suffix == ".csv":
            raise ValueError(
                f"--draws is {str(self.draws)!r}, and the run is not of a table; expected .npy or .safetensors"
            )
        if not is_image(vae.event_shape) and (self.draws is None or self.picture is not None):
            raise ValueError(
                f"a datapoint has shape {list(vae.event_shape)} and is not an image; use --draws to write a file"
            )
        torch.manual_seed(self.seed)
        drawn = _draw(vae, self.count)
        if self.draws is not None:
            writable_folder(self.draws.parent)
            if self.draws.suffix == ".csv" and table is not None:
                content = table.frame(drawn["x"]).to_csv(index=False).encode()
            else:
                content = as_npy(drawn["x"]) if self.draws.suffix == ".npy" else save(drawn)
            replace(self.draws, content)
            print(f"wrote {self.draws}")
        if is_image(vae.event_shape):
            picture = self.picture or folder_of(self.run) / "samples.png"
            writable_folder(picture.parent)
            figure = pyro_vae.plots.samples(drawn["x"].clamp(0, 1), drawn["mean"].clamp(0, 1))
            print(f"wrote {save_figure(figure, picture)}")


def _draw(vae: Any, count: int) -> dict[str, Tensor]:
    """Latents by site, ``[count, latent]``, draws of x and means of p(x | z), each ``[count, *event]``, on the CPU."""
    import torch

    parts: list[dict[str, Tensor]] = []
    for begin in range(0, count, ROWS):
        latents, p_x = vae.draw_prior(min(ROWS, count - begin))
        parts.append({**latents, "x": p_x.sample(), "mean": p_x.mean})
    return {name: torch.cat([part[name].detach().cpu() for part in parts]).contiguous() for name in parts[0]}
