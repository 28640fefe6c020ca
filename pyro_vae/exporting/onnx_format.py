"""ONNX files."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from pyro_vae.exporting.operators import IN_FLOAT64, OF_MASKS, REPLACEMENTS
from pyro_vae.system.warning import quiet

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2**31 - 1  # bytes of a message of Protocol Buffers, which is what an ONNX file is


def check_onnx() -> None:
    """Checks that the packages for ONNX files are installed.

    Raises:
        ImportError: If one is not.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX files need {' and '.join(missing)}: pip install 'pyro-vae[export]'")


def as_onnx(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The content of an ONNX file.

    Args:
        program: The traced program.
        inputs: The names of its inputs.
        outputs: The names of its outputs.

    Raises:
        ValueError: If it would be larger than ONNX files may be.
        Exception: If it cannot be translated.
    """
    with quiet("torch.onnx"):  # about its translation, such as on missing packages for images
        program = _replacing(program, _replaced(program))
        made = torch.onnx.export(program, input_names=inputs, output_names=outputs, dynamo=True, verbose=False)
        model: Any = made.model_proto  # type: ignore[union-attr]  # not None with dynamo=True
    size = model.ByteSize()
    if size > LARGEST:
        raise ValueError(f"it has {size} bytes, and an ONNX file has at most {LARGEST}; use formats=('torch',)")
    return model.SerializeToString()


def _replacing(program: ExportedProgram, replaced: Mapping[Any, Any]) -> ExportedProgram:
    """The program, but where torch decomposes it for the translation, these operators are replaced too.

    To replace them before that would trace the program once more, which is a quarter of the time of an export.
    """
    found = copy.copy(program)
    found.run_decompositions = lambda table: program.run_decompositions({**table, **replaced})  # of this copy alone
    return found


def _replaced(program: ExportedProgram) -> dict[Any, Any]:
    """The operators in a program that are to be replaced, with what replaces them."""
    values = [node.meta.get("val") for node in program.graph.nodes]
    is_double = any(isinstance(value, Tensor) and value.dtype == torch.float64 for value in values)
    table = {**REPLACEMENTS, **(IN_FLOAT64 if is_double else {})}
    has_masks = any(node.target in OF_MASKS and _takes_a_mask(node) for node in program.graph.nodes)
    is_needed = has_masks or any(node.target in table for node in program.graph.nodes)
    return {**table, **(OF_MASKS if has_masks else {})} if is_needed else {}


def _takes_a_mask(node: Node) -> bool:
    values = [each.meta.get("val") for each in node.all_input_nodes]
    return any(isinstance(value, Tensor) and value.dtype == torch.bool for value in values)


def run_onnx(content: bytes, examples: Iterable[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The outputs of an ONNX file with this content in onnxruntime, on the CPU, for several inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = [session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()}) for inputs in examples]
    return [dict(zip(names, map(torch.from_numpy, values), strict=True)) for values in found]


def why_not_onnx(error: BaseException) -> str:
    """Why a program cannot be translated, in one line."""
    chain, seen = [], error
    while seen is not None and seen not in chain:
        chain.append(seen)
        seen = seen.__cause__ or seen.__context__  # type: ignore[assignment]  # None ends the loop
    operators = re.findall(r"No ONNX function found for <OpOverload\(op='(\w+)\.(\w+)'", "\n".join(map(str, chain)))
    if operators:
        names = sorted({name for _, name in operators})
        return f"ONNX has no operator for {', '.join(names)}"
    return str(chain[-1]).strip().partition("\n")[0] or type(chain[-1]).__name__
