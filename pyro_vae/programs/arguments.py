"""The arguments of a program."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import Parameter, signature
from typing import Any

from torch import nn


def parameters_of(program: Callable[..., Any]) -> list[Parameter]:
    """The parameters of a program; for a module those of ``forward``, since ``__call__`` accepts anything."""
    return list(signature(program.forward if isinstance(program, nn.Module) else program).parameters.values())


def most_tensors(parameters: Iterable[Parameter]) -> int | None:
    """The largest number of tensors that can be passed by position; None if there is no limit."""
    kinds = [parameter.kind for parameter in parameters]
    if Parameter.VAR_POSITIONAL in kinds:
        return None
    return sum(kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
