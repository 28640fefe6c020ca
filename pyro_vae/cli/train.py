"""``pyro-vae train``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from tyro.conf import Positional, arg

import pyro_vae
from pyro_vae.checks import is_image
from pyro_vae.cli.data import Data
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.fitting import Fitting
from pyro_vae.cli.run_files import COMMAND, by_flag, read_json, write_json
from pyro_vae.saving.file_names import LAST
from pyro_vae.saving.versions import versions
from pyro_vae.system.devices import choose_device
from pyro_vae.system.files import writable_folder
from pyro_vae.system.lock import locked

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.utils.data import DataLoader, Subset

    from pyro_vae.training import Run


IMAGES = 50  # in a picture
WORKERS = 2  # processes that read data larger than memory
# Options that may change when a run is resumed: they do not affect earlier steps.
FREE = {"out", "resume", "device", "pictures-every", "devices", "strategy", "save-every", "dry-run"}
FREE |= {"tensorboard", "mlflow", "wandb"}
FREE |= {"epochs", "patience", "on-nan", "compile"}  # as in fit

Architecture = TypeVar("Architecture", bound=Any)


@dataclass(frozen=True)
class Train(Generic[Architecture]):
    """Trains a VAE, and saves the run in a folder.

    After Ctrl-C, SIGTERM or a crash, the same command with --resume resumes the run.
    """

    out: Positional[Path]
    """Folder of the run."""
    data: Annotated[Data, arg(name="")]
    vae: Annotated[Architecture, arg(name="")]
    fitting: Annotated[Fitting, arg(name="")]
    seed: int = 0
    """Random seed."""
    device: Annotated[str | None, by_default("the GPU if there is one")] = None
    """Device, such as cpu or cuda:1."""
    resume: bool = False
    """Resume the run in the folder, if there is one."""
    pictures_every: int = 5
    """Number of epochs between pictures of samples, reconstructions and losses; 0: no pictures. None with fsdp."""
    dry_run: bool = False
    """Describe the data and the chosen parts, check that they fit together, and stop."""
    tensorboard: Annotated[bool, by_default("logs are written if it is installed")] = True
    """Do not write logs for TensorBoard."""
    mlflow: bool = False
    """Log to MLflow, at MLFLOW_TRACKING_URI, in the experiment MLFLOW_EXPERIMENT_NAME."""
    wandb: bool = False
    """Log to Weights & Biases, in the project WANDB_PROJECT; WANDB_MODE=offline keeps the logs on this machine."""

    def __call__(self) -> None:
        """Trains the VAE.

        Raises:
            FileExistsError: If the folder contains a run, without --resume.
            CheckpointError: If the run in the folder has other options.
            ValueError: If an option is invalid, or the data do not fit the parts.
            OSError: If the folder cannot be written to, another run is using it, or data cannot be read.
        """
        self.data.check()
        arguments, device = self.fitting.arguments(), choose_device(self.device)
        if self.dry_run:
            self._train(device, self.out, arguments)
            return
        out = writable_folder(self.out)
        with locked(out, lend=True) if pyro_vae.processes.is_started_first() else nullcontext():
            self._train(device, out, arguments)

    def _train(self, device: torch.device, out: Path, arguments: dict[str, Any]) -> None:
        """Trains the VAE, in a folder that no other run is using."""
        if (out / LAST).exists() and not self.resume:
            raise FileExistsError(f"there is a run in {str(out)!r}: resume it with --resume, or choose another folder")
        seen = self.data.look()
        data = self.data.resolved(seen.splits, self.vae.likelihood)
        splits = seen.splits
        if self.vae.likelihood == "categorical":
            splits = replace(splits, **{name: getattr(splits, name).long() for name in ("train", "valid", "test")})
        train = splits.train if data.binarize == "dynamic" else data.binarized(splits.train)
        valid = data.binarized(splits.valid)
        import torch

        torch.manual_seed(self.seed)
        vae = self.vae.build(seen, train).to(device)
        if pyro_vae.processes.is_started_first() and (self.dry_run or data.is_own):
            print(f"{seen.words}\n{self.vae.words(data.binarize)}")
            if seen.options:  # by default other than --help says
                print(f"options: {self._spelled(seen.options)}")
        if self.dry_run:
            vae.check(pyro_vae.data.binarize.fixed(train[:100]) if data.binarize == "dynamic" else train)
            return
        options = by_flag(replace(self, data=data))
        table = {} if seen.table is None else {"table": seen.table.to_json()}
        if (out / LAST).exists() and (out / COMMAND).exists():
            _check_same(out / COMMAND, options, table)
        if pyro_vae.processes.is_started_first():
            write_json(out / COMMAND, {"command": "train", "options": options, **table, "versions": versions()})
        run = pyro_vae.fit(
            vae,
            train if seen.files is None else self._loader(seen.files, data.binarize, vae.event_dtype),
            valid,
            transform=pyro_vae.data.binarize.dynamic if data.binarize == "dynamic" else None,
            out=out,
            resume=self.resume,
            callbacks=self._callbacks(valid, splits.valid_labels, self._params(data)),
            **arguments,
        )
        if pyro_vae.processes.Processes(device).is_first:
            from pyro_vae.training.progress_bar import describe_row

            print(f"{describe_row(run)}; in {run.seconds:.1f} s, saved in {str(out)!r}")

    def _spelled(self, flags: Iterable[str]) -> str:
        """Some options with their values, as on the command line."""
        values = {f"--{name}": value for name, value in by_flag(self).items()}
        words: list[Any] = []
        for flag in flags:
            if flag in values:
                words += [flag, *(values[flag] if isinstance(values[flag], list) else [values[flag]])]
        return " ".join(map(str, words))

    def _loader(self, files: Subset[Tensor], binarized: str | None, dtype: torch.dtype) -> DataLoader[Tensor]:
        """Batches that other processes read from files while a batch is trained on.

        Raises:
            ValueError: If the data are to be binarized.
        """
        if binarized != "none":
            raise ValueError(f"--binarize is {binarized}; expected none, because the data are larger than memory")
        from torch.utils.data import DataLoader

        fitting = self.fitting
        return DataLoader(
            files,
            fitting.batch_size,
            shuffle=True,
            drop_last=fitting.drop_last,
            num_workers=WORKERS,
            persistent_workers=True,
            collate_fn=partial(_batch, dtype),
        )

    def _params(self, data: Data) -> dict[str, Any]:
        """The options of the model and the data, without the folders of this machine."""
        options = by_flag(self.vae) | {"data": Path(str(data.data)).name, "binarize": data.binarize, "seed": self.seed}
        return {name.replace("-", "_").replace(".", "_"): value for name, value in options.items()}

    def _callbacks(self, images: Tensor, labels: Tensor | None, params: dict[str, Any]) -> list[Callable[[Run], Any]]:
        """The callbacks that ``fit`` calls after every epoch."""
        logs = pyro_vae.training.logs
        callbacks: list[Callable[[Run], Any]] = []
        # Sharded parameters can only be used by all processes together, and only one process draws.
        can_draw = is_image(images.shape[1:]) and self.fitting.strategy != "fsdp"
        has_pictures = can_draw and self.pictures_every > 0
        if has_pictures:
            callbacks.append(logs.Pictures(self.out, images[:IMAGES], self.pictures_every))
        if self.tensorboard and find_spec("tensorboard") is not None:
            shown = (images, labels, self.pictures_every) if has_pictures else ()
            callbacks.append(logs.TensorBoard(self.out / "tensorboard", *shown))
        for is_chosen, log in ((self.mlflow, logs.MLflow), (self.wandb, logs.WandB)):
            if is_chosen:
                callbacks.append(log(images[:IMAGES] if has_pictures else None, max(self.pictures_every, 1), params))
        return callbacks


def _batch(dtype: torch.dtype, rows: list[Tensor]) -> Tensor:
    import torch

    return torch.stack(rows).to(dtype)


def _check_same(path: Path, options: dict[str, Any], table: dict[str, Any]) -> None:
    """Compares the options with those the run in the folder started with; ``fit`` cannot compare all of them.

    Raises:
        CheckpointError: If an option differs, or a column of the table is described differently.
    """
    stored = read_json(path)
    there = stored["options"]
    free = FREE if options["lr-decay"] == "none" else FREE - {"epochs"}
    is_new = {name for name, value in options.items() if name not in there and (not value or value == "auto")}
    different = [name for name in options if name not in free | is_new and there.get(name) != options[name]]
    if different:
        name, *others = different
        why = f", and --lr-decay {options['lr-decay']} depends on it" if name == "epochs" else ""
        more = f" (also different: {', '.join(f'--{each}' for each in others)})" if others else ""
        raise pyro_vae.CheckpointError(
            f"{str(path)!r} is of another run: --{name} is {there.get(name)!r} there and {options[name]!r} here{why}"
            f"{more}; choose another folder, or the same options"
        )
    columns = zip(stored.get("table", ()), json.loads(json.dumps(table.get("table", ()))), strict=False)
    for old, new in columns:
        if old != new:
            raise pyro_vae.CheckpointError(
                f"{str(path)!r} cannot be resumed: column {old['name']!r} is described differently there, because the "
                "file has changed or the run is of an older version; choose another folder"
            )
