"""Files of ``torch.export``."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.export import ExportedProgram

__all__ = ["as_pt2", "run_pt2"]


def as_pt2(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:  # noqa: ARG001
    """The content of a file that ``torch.export.load`` reads."""
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def run_pt2(content: bytes, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Loads the content of such a file, and runs the program."""
    return torch.export.load(io.BytesIO(content)).module()(*inputs.values())
