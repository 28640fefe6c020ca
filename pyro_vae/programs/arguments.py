"""What arguments a program takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import Parameter, signature
from typing import Any

from torch import nn

__all__ = ["most_tensors", "parameters_of"]


def parameters_of(program: Callable[..., Any]) -> list[Parameter]:
    """The parameters of a program; of a module, those of ``forward``, since ``__call__`` takes anything."""
    return list(signature(program.forward if isinstance(program, nn.Module) else program).parameters.values())


def most_tensors(parameters: Iterable[Parameter]) -> int | None:
    """How many tensors can be passed by position; None if any number."""
    kinds = [parameter.kind for parameter in parameters]
    if Parameter.VAR_POSITIONAL in kinds:
        return None
    return sum(kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
