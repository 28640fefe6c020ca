"""Shared by the commands that use a run on data: options, and how the run and the data are opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

import pyro_vae
from pyro_vae.checks import check_count
from pyro_vae.cli.data import Data
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.run_files import check_found, data_of, folder_of, rows_of, seen_of
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class OnRun:
    """Options of a command that uses a run on data."""

    run: Positional[Path]
    """Folder of a run (to use its best weights) or of a saved model; or one checkpoint file."""
    data: Annotated[Data, arg(name="")]
    device: Annotated[str | None, by_default("the GPU if there is one")] = None
    """Device, such as cpu or cuda:1."""

    def open(self) -> tuple[Any, Data]:
        """The VAE of the run, on its device, and the options that choose the data: those given, else those of the run.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If the device or the options are invalid.
            OSError: If something cannot be read.
        """
        check_found(self.run, self.data)
        device = choose_device(self.device)
        return pyro_vae.load(self.run).to(device), data_of(self.run, self.data)


@dataclass(frozen=True, kw_only=True)
class OnRows(OnRun):
    """Options of a command that computes something for each datapoint."""

    split: Literal["all", "test", "valid", "train"] = "all"
    """Part of the data to use."""
    limit: Annotated[int | None, by_default("all")] = None
    """Number of datapoints to use, from the first one."""

    def open_rows(self, file: Path | None, default: str) -> tuple[Any, Tensor, Tensor | None, Path]:
        """The VAE of the run, its datapoints ``[n, *event]``, their labels ``[n]`` or None, and the file to write.

        Args:
            file: The file that the user has chosen.
            default: The name of the file in the folder of the run, if the user has chosen none.

        Raises:
            CheckpointError: If the run cannot be loaded.
            ValueError: If an option is invalid, or the data do not fit the VAE.
            OSError: If the folder cannot be written to, or something cannot be read.
        """
        if self.limit is not None:
            check_count("--limit", self.limit)
        vae, data = self.open()
        out = file or writable_folder(folder_of(self.run)) / default
        x, labels = rows_of(seen_of(self.run, data, self.data), data, self.split, self.chosen, vae)
        x = x.to(next(vae.parameters()).device)
        vae.check(x)
        return vae, x, labels, out

    def chosen(self, n: int) -> Any:  # noqa: ARG002
        """Which of n datapoints to use, as an index."""
        return slice(self.limit)
