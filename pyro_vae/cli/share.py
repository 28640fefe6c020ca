"""``pyro-vae share``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

from tyro.conf import Positional

import pyro_vae
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.run_files import COMMAND, EVIDENCE, folder_of, read_json, write_json
from pyro_vae.saving.checkpoint import read_content
from pyro_vae.saving.file_names import LAST, checkpoint_of

# Options that say nothing about the model. Those that are paths are private.
NOT_SHOWN = {"out", "resume", "dry-run", "device", "data-root", "pictures-every", "tensorboard", "save-every"}
NOT_SHOWN |= {"mlflow", "wandb"}


@dataclass(frozen=True)
class Share:
    """Writes a folder to share: the best weights, a model card with settings and evidence, and the pictures of the run.

    Nothing else of the run is written: no training state, no data, no paths. For a table, the names of the columns and
    of their categories are written.
    """

    run: Positional[Path]
    """Folder of a run (to use its best weights) or of a saved model; or one checkpoint file."""
    out: Annotated[Path | None, by_default("none")] = None
    """Folder for the files. pyro_vae.load loads it, and the other commands take it instead of a run."""
    push_to: Annotated[str | None, by_default("none")] = None
    """Name on the Hugging Face Hub, as USER/NAME, to upload the same files to (log in first with: hf auth login)."""
    private: bool = False
    """Make a new repository on the Hub private."""
    dataset: Annotated[str | None, by_default("the name in the run")] = None
    """The data in words, for the model card."""
    license: Annotated[str | None, by_default("none")] = None
    """Identifier of a licence on the Hub, such as mit, for the model card."""

    def __call__(self) -> None:
        """Writes the files, and uploads them.

        Raises:
            CheckpointError: If the run cannot be loaded.
            FileExistsError: If something else is in the folder.
            ImportError: If huggingface_hub is needed and not installed.
            ValueError: If there is neither --out nor --push-to.
            OSError: If something cannot be read, written or uploaded.
        """
        if self.out is None and self.push_to is None:
            raise ValueError("there is nothing to do; expected --out FOLDER, or --push-to USER/NAME")
        checkpoint_of(self.run)
        if self.out is not None:
            out = self.out.expanduser()
            self._write(out, None)
            print(f"wrote {out}: {', '.join(sorted(each.name for each in out.iterdir()))}")
        if self.push_to is not None:
            from pyro_vae.saving.hub import push

            print(f"uploaded {push(self._write, self.push_to, private=self.private or None)}")

    def _write(self, out: Path, name: str | None) -> None:
        from pyro_vae.saving.pretrained import save_with_card

        folder = folder_of(self.run)
        command = _command(folder)
        settings = command["options"] if command else _settings(folder)
        save_with_card(
            pyro_vae.load(self.run),
            out,
            name,
            sorted(folder.glob("*.png")),
            evidence=_evidence(folder),
            data=self.dataset or settings.get("data"),
            settings=settings,
            license=self.license,
        )
        if command:
            write_json(out / COMMAND, command)


def _command(folder: Path) -> dict[str, Any]:
    """What the other commands read of a run, without paths; empty if it is not a run of ``pyro-vae train``."""
    command = read_json(folder / COMMAND)
    if not command:
        return {}
    options = {name: value for name, value in command["options"].items() if name not in NOT_SHOWN}
    if options.get("data"):
        options["data"] = Path(options["data"]).name
    return {**command, "options": options}


def _settings(folder: Path) -> dict[str, Any]:
    """The settings of a run of ``fit``, without the fingerprints of its data; empty if there is no run."""
    settings = read_content(folder / LAST).get("settings", {}) if (folder / LAST).exists() else {}
    return {name: value for name, value in settings.items() if name not in ("train", "valid")}


def _evidence(folder: Path) -> Any:
    """What ``pyro-vae evaluate`` has found, if it was run: an object as the model card takes it."""
    found = read_json(folder / EVIDENCE)
    if not found:
        return None
    error, options = found["log_prob_error"], found["options"]
    numbers = {
        "datapoints": f"{found['datapoints']} ({options['split']})",
        "settled": f"{found['settled']:.1%} of them; the errors of the others are not known",
        "standard error of the finite set": found["log_prob_population_std_error"] or "not known",
        **{f"ELBO, {name}": each["value"] for name, each in found["elbo_estimates"].items()},
    }
    words = "\n".join(
        f"{name + ':':<38}{f'{value:.3f}' if isinstance(value, float) else value}" for name, value in numbers.items()
    )
    return SimpleNamespace(
        mean=found["log_prob"], mean_error=math.inf if error is None else error, summary=lambda: words
    )
