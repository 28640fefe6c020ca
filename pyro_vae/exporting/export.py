"""Exports programs: each is traced, converted to each format, run and compared before the files are written."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vae.checks import check_choice
from pyro_vae.exporting.onnx_format import as_onnx, check_onnx, run_onnx, why_not_onnx
from pyro_vae.exporting.program import Program
from pyro_vae.exporting.torch_format import as_pt2, run_pt2
from pyro_vae.exporting.tracing import traced
from pyro_vae.system.files import replace_all, writable_folder
from pyro_vae.system.packages import versions_of

DESCRIPTION = "export.json"
TOLERANCE = 1e-4


class ExportError(RuntimeError):
    """A program cannot be exported, or its file computes something else.

    Example:
        >>> from pyro_vae.exporting import ExportError, Program, export_programs
        >>> words, examples = {"x": "an image", "y": "the image with noise"}, ({"x": x}, {"x": x[:1]})
        >>> program = Program("noisy", lambda x: {"y": x + torch.randn_like(x)}, [], examples, words, "x with noise")
        >>> try:
        ...     export_programs([program], "files", formats=("torch",))
        ... except ExportError as error:  # each call draws other noise
        ...     print(error)
        noisy.pt2 gives y with a difference of ... for 8 rows
    """


class _Format(NamedTuple):
    words: str
    suffix: str
    check: Callable[[], None]
    write: Callable[..., bytes]
    run: Callable[[bytes, Iterable[Mapping[str, Tensor]]], list[dict[str, Tensor]]]
    why_not: Callable[[BaseException], str]


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


_FORMATS = {
    "onnx": _Format("ONNX", ".onnx", check_onnx, as_onnx, run_onnx, why_not_onnx),
    "torch": _Format("torch.export", ".pt2", lambda: None, as_pt2, run_pt2, _first_line),
}


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Checks the names of formats, and that the packages for them are installed.

    Raises:
        ValueError: If there are none, or one is unknown.
        ImportError: If a package is not installed.

    Example:
        >>> from pyro_vae.exporting import check_formats
        >>> check_formats("torch")
        ('torch',)
    """
    formats = (formats,) if isinstance(formats, str) else tuple(dict.fromkeys(formats))
    if not formats:
        raise ValueError(f"formats is empty; expected some of {', '.join(map(repr, _FORMATS))}")
    for name in formats:
        check_choice("a format", name, list(_FORMATS))
        _FORMATS[name].check()
    return formats


def export_programs(
    programs: Iterable[Program],
    folder: str | Path,
    formats: Sequence[str] = ("onnx", "torch"),
    notes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes programs as files, and ``export.json``, which says what they compute.

    Every file is run again, for two numbers of rows, and compared with its program: outputs may differ by
    ``1e-4 + 1e-4 * abs(output)``. The files are written after that, all or none. Files of an older export in the folder
    are replaced or, if the new one does not have them, deleted.

    Args:
        programs: The programs.
        folder: The folder for the files.
        formats: ``"onnx"``, ``"torch"``, or both.
        notes: Further entries of ``export.json``, as JSON values.

    Returns:
        The content of ``export.json``.

    Raises:
        ExportError: If a program cannot be exported, or a file gives other outputs.
        ImportError: If packages for a format are not installed.
        ValueError: If a format is unknown.
        OSError: If the files cannot be written.

    Example:
        >>> from pyro_vae.exporting import Program, export_programs
        >>> network = vae.posterior.network
        >>> words, examples = {"x": "an image", "y": "the parameters of q(z | x)"}, ({"x": x}, {"x": x[:1]})
        >>> program = Program("network", lambda x: {"y": network(x)}, [network], examples, words, "the encoder")
        >>> description = export_programs([program], "files", formats=("torch",))
        >>> list(description["programs"]["network"]["files"])
        ['network.pt2']
    """
    formats, folder = check_formats(formats), Path(folder)
    is_new = not folder.exists()
    writable_folder(folder)
    try:
        exported = {program.name: _export(program, formats) for program in programs}
        contents = {file: data for files, _ in exported.values() for file, data in files.items()}
        description = {
            **(notes or {}),
            "programs": {name: described for name, (_, described) in exported.items()},
            "tolerance": TOLERANCE,
            "versions": _versions(formats),
        }
        obsolete = _files_of(folder) - contents.keys()
        contents[DESCRIPTION] = f"{json.dumps(description, indent=2, allow_nan=False)}\n".encode()
        replace_all({folder / file: data for file, data in contents.items()}, [folder / file for file in obsolete])
    except BaseException:  # also Ctrl-C
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise
    return description


def _export(program: Program, formats: Sequence[str]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of a program by name, and their description for ``export.json``."""
    with torch.no_grad():
        expected = [program.function(*inputs.values()) for inputs in program.examples]
    try:
        graph = traced(program)
    except Exception as error:  # torch does not document what it raises
        raise ExportError(f"{program.name} cannot be traced by torch.export: {_first_line(error)}") from error
    made: dict[str, bytes] = {}
    for name in formats:
        kind, file = _FORMATS[name], program.name + _FORMATS[name].suffix
        try:
            made[file] = kind.write(graph, list(program.examples[0]), list(expected[0]))
            found = kind.run(made[file], program.examples)
        except Exception as error:  # likewise, and onnxruntime has errors of its own
            raise ExportError(f"{program.name} cannot be exported as {kind.words}: {kind.why_not(error)}") from error
        for inputs, mine, other in zip(program.examples, expected, found, strict=True):
            _compare(file, len(next(iter(inputs.values()))), mine, other)
    return made, {
        "about": program.about,
        "files": {file: hashlib.sha256(data).hexdigest() for file, data in made.items()},
        "inputs": [_described(name, tensor, program) for name, tensor in program.examples[0].items()],
        "outputs": [_described(name, tensor, program) for name, tensor in expected[0].items()],
    }


def _compare(file: str, rows: int, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    for name, mine in expected.items():
        other = found[name]
        if other.shape != mine.shape or other.dtype != mine.dtype:
            raise ExportError(
                f"{file} gives {name} of shape {list(other.shape)} and {other.dtype} for {rows} rows; expected "
                f"{list(mine.shape)} and {mine.dtype}"
            )
        if not torch.allclose(other.double(), mine.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
            worst = (other.double() - mine.double()).abs().max().item()
            raise ExportError(f"{file} gives {name} with a difference of {worst:.2g} for {rows} rows")


def _described(name: str, tensor: Tensor, program: Program) -> dict[str, Any]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"name": name, "shape": ["n", *tensor.shape[1:]], "dtype": dtype, "what": program.words[name]}


def _files_of(folder: Path) -> set[str]:
    """The names of the files of an older export; none if there is none, or its description is damaged."""
    try:
        described = json.loads((folder / DESCRIPTION).read_text())["programs"].values()
        names = {name for each in described for name in each["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    suffixes = tuple(kind.suffix for kind in _FORMATS.values())
    return {name for name in names if name.endswith(suffixes) and Path(name).name == name}


def _versions(formats: Sequence[str]) -> dict[str, str]:
    packages = ["pyro-vae", "torch", *(["onnx", "onnxruntime"] if "onnx" in formats else [])]
    return {"python": platform.python_version(), **versions_of({name: name for name in packages})}
