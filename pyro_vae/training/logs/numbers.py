"""The numbers of a run, and its settings, under the same names in every log."""

from __future__ import annotations

from typing import Any

from pyro_vae.training.run import Row, Run

LOSS = "train/loss"  # which every row has


def scalars(row: Row) -> dict[str, float]:
    """The numbers of a row of the history by the names in the log, such as ``valid/loss``, without the step."""
    return {_tag(name): value for name, value in row.items() if name != "step" and isinstance(value, int | float)}


def settings(run: Run) -> dict[str, Any]:
    """The settings of a run that are not None, the classes of the parts, and the number of parameters."""
    known = {name: value for name, value in run.settings.items() if value is not None}
    parts = {name: type(part).__name__ for name, part in run.vae.named_children()}
    return {**known, **parts, "parameters": sum(parameter.numel() for parameter in run.vae.parameters())}


def _tag(name: str) -> str:
    return name.replace("_", "/", 1) if name.startswith(("train_", "valid_")) else f"train/{name}"
