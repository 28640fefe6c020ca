"""A function of tensors, and what its export needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Program:
    """A function of tensors that is exported as a file.

    Attributes:
        name: The name of the file, without a suffix.
        function: Called with the inputs by position; returns the outputs by name. The first dimension of all inputs and
            outputs is n, the number of rows.
        parts: The modules that the function calls, whose weights are in the file.
        examples: Inputs by name, for two numbers of rows.
        words: What each input and output is, by name.
        about: What the function is.

    Example:
        >>> from pyro_vae.exporting import Program
        >>> network = vae.posterior.network
        >>> program = Program(
        ...     name="network",
        ...     function=lambda x: {"y": network(x)},
        ...     parts=[network],
        ...     examples=({"x": x}, {"x": x[:1]}),
        ...     words={"x": "an image", "y": "the parameters of q(z | x)"},
        ...     about="the encoder",
        ... )
        >>> program.module()(x)["y"].shape
        torch.Size([8, 4])
    """

    name: str
    function: Callable[..., dict[str, Tensor]]
    parts: Sequence[nn.Module]
    examples: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
    words: Mapping[str, str]
    about: str

    def module(self) -> nn.Module:
        """The function as a module, with the parts as submodules."""
        return _Function(self.function, self.parts)


class _Function(nn.Module):
    def __init__(self, function: Callable[..., dict[str, Tensor]], parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.function: Any = function
        self.parts = nn.ModuleList(parts)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return self.function(*inputs)
