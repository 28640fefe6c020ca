"""Files of ``torch.export``."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.export import ExportedProgram


def as_pt2(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:  # noqa: ARG001
    """The content of a file that ``torch.export.load`` reads."""
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def run_pt2(content: bytes, examples: Iterable[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The outputs of such a file with this content, loaded again, for several inputs."""
    program = torch.export.load(io.BytesIO(content)).module()
    with torch.no_grad():
        return [program(*inputs.values()) for inputs in examples]
