"""A program traced by ``torch.export``."""

from __future__ import annotations

import warnings

import torch
from torch.export import Dim, ExportedProgram

from pyro_vae.exporting.program import Program

#: A largest number of rows. Without one, torch 2.7 does not trace x[:]: x might have the most rows that there can be.
_MANY = 2**62


def traced(program: Program) -> ExportedProgram:
    """Traces a program, with the number of rows left open.

    Raises:
        Exception: If it cannot be traced; torch does not document what it raises.
    """
    rows = Dim("n", max=_MANY)
    inputs = tuple(program.examples[0].values())
    # The lazy properties of torch's distributions enable gradients, which would be part of the program elsewhere.
    with torch.enable_grad(), warnings.catch_warnings():
        # Recurrent units keep their weights in a list too, which is set again when they are traced.
        warnings.filterwarnings("ignore", message=".*were assigned during export")
        found = torch.export.export(
            program.module().eval(), inputs, dynamic_shapes={"inputs": tuple({0: rows} for _ in inputs)}, strict=False
        )
    for node in found.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return found
