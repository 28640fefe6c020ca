"""``pyro-vae encode``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from tyro.conf import Positional, arg

from pyro_vae import load
from pyro_vae.cli.columns_file import write_columns
from pyro_vae.cli.data import Data
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.run_files import data_of, folder_of, rows_of, seen_of
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder

__all__ = ["Encode"]


@dataclass(frozen=True)
class Encode:
    """Writes the code of each datapoint: the mean of q(z | x)."""

    run: Positional[Path]
    """Folder of the run, to use its best weights; or one of its checkpoint files."""
    data: Annotated[Data, arg(name="")]
    split: Literal["all", "test", "valid", "train"] = "all"
    """Which part of the data to encode."""
    limit: Annotated[int | None, by_default("all")] = None
    """Number of datapoints to use, from the first one."""
    out: Annotated[Path | None, by_default("codes.csv in the folder of the run")] = None
    """File for the codes, .csv."""
    device: Annotated[str | None, by_default("the GPU if there is one")] = None
    """Device, such as cpu or cuda:1."""

    def __call__(self) -> None:
        """Encodes the data.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If an option is invalid, or the data do not fit the VAE.
            OSError: If a file cannot be written or read.
        """
        device = choose_device(self.device)
        vae: Any = load(self.run).to(device)
        out = self.out or writable_folder(folder_of(self.run)) / "codes.csv"
        data = data_of(self.run, self.data)
        x, labels = rows_of(seen_of(self.run, data), data, self.split, self.limit, vae)
        vae.check(x.to(device))
        parts = [vae.codes(part.to(device)) for part in x.split(1000)]
        columns: dict[str, Tensor] = {}
        for site in parts[0]:
            z = torch.cat([part[site].flatten(1).cpu() for part in parts])
            columns |= {f"{site}{i}": z[:, i] for i in range(z.shape[1])}
        write_columns(out, columns | ({} if labels is None else {"label": labels}))
        print(f"wrote {out}")
