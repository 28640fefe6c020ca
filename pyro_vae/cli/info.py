"""``pyro-vae info``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

import pyro_vae
from pyro_vae.cli.run_files import COMMAND, EVIDENCE, folder_of, read_json
from pyro_vae.saving.checkpoint import read_content
from pyro_vae.saving.file_names import LAST, MODEL, checkpoint_of


@dataclass(frozen=True)
class Info:
    """Prints a summary of the folder of a run, or of a saved model."""

    run: Positional[Path]
    """Folder of a run or of a saved model; or one checkpoint file."""

    def __call__(self) -> None:
        """Prints the summary.

        Raises:
            CheckpointError: If the run cannot be loaded.
            OSError: If something cannot be read.
        """
        folder = folder_of(self.run)
        files = [folder / name for name in (LAST, MODEL) if (folder / name).exists()]
        if not files:
            raise FileNotFoundError(f"there is no run or saved model in the folder {str(folder)!r}")
        content = read_content(files[0])
        history, best = content.get("history", []), content.get("progress", {"best_epoch": 0})["best_epoch"]
        _print("parameters", _parts(self.run) if content["vae"] else {"unknown": content["not_describable"]})
        if history:
            _print("last epoch" if best < len(history) else "last epoch, which is the best", history[-1])
        if 0 < best < len(history):
            _print("best epoch", history[best - 1])
        if found := read_json(folder / EVIDENCE):
            _print("evidence, in nats per datapoint", {name: found[name] for name in found if name != "versions"})
        if settings := read_json(folder / COMMAND).get("options", content.get("settings")):
            _print("settings", settings)
        _print("versions", content["versions"])


def _parts(run: Path) -> dict[str, str]:
    """The number of parameters of each part."""
    description = read_content(checkpoint_of(run))["vae"] or {}
    counts = description.get("parameters") or _counted(run)
    *parts, total = counts.values()
    shared = " (parts share some of them)" if total != sum(parts) else ""
    words = {name: f"{count:,}" for name, count in counts.items()}
    return {**words, "total": f"{words['total']}{shared}"}


def _counted(run: Path) -> dict[str, int]:
    """The numbers in a run of an older version, which does not have them in its files."""
    from pyro_vae.saving.parameter_counts import parameter_counts

    return parameter_counts(pyro_vae.load(run))


def _print(title: str, values: Mapping[str, Any], indent: str = "") -> None:
    print(indent + title)
    for name, value in values.items():
        if isinstance(value, Mapping):
            _print(name, value, indent + "  ")
        else:
            print(f"{indent}  {name:<32}{f'{value:.6g}' if isinstance(value, float) else value}")
