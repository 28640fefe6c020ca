"""``pyro-vae encode``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pyro_vae.cli.columns_file import write_columns
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.on_run import OnRows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Encode(OnRows):
    """Writes the code of each datapoint: the mean of q(z | x)."""

    out: Annotated[Path | None, by_default("codes.csv in the folder of the run")] = None
    """File for the codes, .csv."""

    def __call__(self) -> None:
        """Encodes the data.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If an option is invalid, or the data do not fit the VAE.
            OSError: If a file cannot be written or read.
        """
        vae, x, labels, out = self.open_rows(self.out, "codes.csv")
        import torch

        parts = [vae.codes(part) for part in x.split(1000)]
        columns: dict[str, Tensor] = {}
        for site in parts[0]:
            z = torch.cat([part[site].flatten(1).cpu() for part in parts])
            columns |= {f"{site}{i}": z[:, i] for i in range(z.shape[1])}
        write_columns(out, columns | ({} if labels is None else {"label": labels}))
        print(f"wrote {out}")
