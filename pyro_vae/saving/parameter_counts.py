"""The number of parameters of each part of a model."""

from __future__ import annotations

from torch import nn


def parameter_counts(module: nn.Module) -> dict[str, int]:
    """The numbers by part, and the total, in which a parameter that parts share counts once."""

    def count(part: nn.Module) -> int:
        return sum(parameter.numel() for parameter in part.parameters())

    parts = {f"{name} ({type(part).__name__})": count(part) for name, part in module.named_children()}
    return {**parts, "total": count(module)}
