"""``pyro-vae train``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import torch
from torch import Tensor
from tyro.conf import Positional, arg

from pyro_vae import CheckpointError, fit
from pyro_vae.cli.data import Data
from pyro_vae.cli.fitting import Fitting
from pyro_vae.cli.pictures import is_image
from pyro_vae.cli.run_files import COMMAND, by_flag, read_json, write_json
from pyro_vae.data import binarize
from pyro_vae.processes import Processes, is_started_first
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder
from pyro_vae.system.lock import locked
from pyro_vae.training.loading import LAST
from pyro_vae.training.logs import Pictures, TensorBoard
from pyro_vae.training.progress_bar import describe_row
from pyro_vae.training.run import Run
from pyro_vae.training.run_folder import versions

__all__ = ["Train"]

IMAGES = 50  # in a picture
# What may be another when a run goes on: it does not change what is done up to there.
FREE = {"out", "resume", "device", "pictures-every", "tensorboard", "devices", "strategy", "save-every"}
FREE |= {"epochs", "patience", "on-nan", "compile"}  # as fit has it

Architecture = TypeVar("Architecture", bound=Any)


@dataclass(frozen=True)
class Train(Generic[Architecture]):
    """Trains a VAE, and keeps the run in a folder of its own.

    Neither Ctrl-C nor SIGTERM nor a crash loses it: the same command with --resume goes on.
    """

    out: Positional[Path]
    """Folder of the run."""
    data: Annotated[Data, arg(name="")]
    vae: Annotated[Architecture, arg(name="")]
    fitting: Annotated[Fitting, arg(name="")]
    seed: int = 0
    """Of the initial weights, and of all else that is random."""
    device: str | None = None
    """Such as cpu or cuda:1; by default the GPU if there is one."""
    resume: bool = False
    """Goes on with the run in the folder, if there is one."""
    pictures_every: int = 5
    """Epochs between pictures of samples, reconstructions and losses; 0 for none, nor are there any with fsdp."""
    tensorboard: bool = True
    """Without logs for TensorBoard, which are written if it is installed."""

    def __call__(self) -> None:
        """Trains.

        Raises:
            FileExistsError: If the folder has a run, which is not to go on.
            CheckpointError: If it is to go on with other options.
            ValueError: If an option has a value that cannot be, or the data are not what the parts take.
            OSError: If the folder cannot be written to, or another run is in it, or data cannot be read.
        """
        device, out, arguments = choose_device(self.device), writable_folder(self.out), self.fitting.arguments()
        with locked(out, lend=True) if is_started_first() else nullcontext():
            self._train(device, out, arguments)

    def _train(self, device: torch.device, out: Path, arguments: dict[str, Any]) -> None:
        """Trains, in a folder that no other run is in."""
        if (out / LAST).exists() and not self.resume:
            raise FileExistsError(f"there is a run in {str(out)!r}: --resume goes on with it; or choose another folder")
        splits = self.data.load()
        data = self.data.resolved(splits, self.vae.likelihood)
        train = splits.train if data.binarize == "dynamic" else data.binarized(splits.train)
        valid = data.binarized(splits.valid)
        torch.manual_seed(self.seed)
        vae = self.vae.build(train).to(device)
        options = by_flag(replace(self, data=data))
        if (out / LAST).exists() and (out / COMMAND).exists():
            _check_same(out / COMMAND, options)
        if is_started_first():
            write_json(out / COMMAND, {"command": "train", "options": options, "versions": versions()})
        run = fit(
            vae,
            train,
            valid,
            transform=binarize.dynamic if data.binarize == "dynamic" else None,
            out=out,
            resume=self.resume,
            callbacks=self._callbacks(valid, splits.valid_labels),
            **arguments,
        )
        if Processes(device).is_first:
            print(f"{describe_row(run)}; in {run.seconds:.1f} s, kept in {str(out)!r}")

    def _callbacks(self, images: Tensor, labels: Tensor | None) -> list[Callable[[Run], Any]]:
        """What is done after every epoch."""
        callbacks: list[Callable[[Run], Any]] = []
        # What is spread over processes can only be run by all of them, and one draws.
        can_draw = is_image(images.shape[1:]) and self.fitting.strategy != "fsdp"
        has_pictures = can_draw and self.pictures_every > 0
        if has_pictures:
            callbacks.append(Pictures(self.out, images[:IMAGES], self.pictures_every))
        if self.tensorboard and find_spec("tensorboard") is not None:
            shown = (images, labels, self.pictures_every) if has_pictures else ()
            callbacks.append(TensorBoard(self.out / "tensorboard", *shown))
        return callbacks


def _check_same(path: Path, options: dict[str, Any]) -> None:
    """Compares the options of a run that goes on with those it began with; fit sees of parts and functions less.

    Raises:
        CheckpointError: If an option is another.
    """
    there = read_json(path)["options"]
    free = FREE if options["lr-decay"] == "none" else FREE - {"epochs"}
    for name, value in options.items():
        if name not in free and there.get(name) != value:
            raise CheckpointError(
                f"{str(path)!r} is of another run: --{name} is {there.get(name)!r} there and {value!r} here; choose "
                "another folder, or the same options"
            )
