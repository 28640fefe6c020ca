"""Checkpoint files: tensors and JSON, written atomically. Reading one never executes code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pyro_vae.system.files import replace
from pyro_vae.system.tensor_files import ChecksumError, from_bytes, text_of, to_bytes

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1

Tensors = TypeVar("Tensors")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: it is damaged, not written by this package, or of another model or run.

    Example:
        >>> _ = open("model.safetensors", "w").write("not a model")
        >>> try:
        ...     load("model.safetensors")
        ... except CheckpointError as error:
        ...     print(error)
        model.safetensors is not a checkpoint of pyro_vae, or is damaged: ...
    """


@contextmanager
def blaming(path: Path, reason: str) -> Iterator[None]:
    """Turns every error in the context into a CheckpointError: libraries may raise anything at invalid content.

    Raises:
        CheckpointError: If there is an error; the message is ``{path} {reason}`` and that of the error.
    """
    try:
        yield
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:
        raise CheckpointError(f"{path} {reason}: {str(error) or type(error).__name__}") from error


def write(path: Path, tensors: Mapping[str, Tensor], content: dict[str, Any]) -> None:
    """Writes tensors and JSON content to a safetensors file with a checksum.

    Raises:
        OSError: If it cannot be written; the old file stays as it was.
    """
    text = json.dumps({"format": FORMAT, **content}, default=float)  # callbacks may add NumPy numbers to the history
    replace(path, to_bytes(tensors, text))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the content of a file that :func:`write` has written.

    Raises:
        OSError: If there is no such file, or it cannot be read.
        CheckpointError: If it is damaged, not written by this package, or of a newer version.
    """
    return _read(path, from_bytes)


def read_content(path: Path) -> dict[str, Any]:
    """The content alone, without importing torch; the file is checked as by :func:`read`.

    Raises:
        OSError: As :func:`read`.
        CheckpointError: As :func:`read`.
    """
    return _read(path, lambda data: (None, text_of(data)))[1]


def _read(path: Path, parse: Callable[[bytes], tuple[Tensors, str]]) -> tuple[Tensors, dict[str, Any]]:
    data = path.read_bytes()
    with blaming(path, "is not a checkpoint of pyro_vae, or is damaged"):
        try:
            tensors, text = parse(data)
        except ChecksumError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        content = dict(json.loads(text))
        if content["format"] > FORMAT:
            version = dict(content.get("versions", {})).get("pyro_vae", "a newer version")
            raise CheckpointError(f"{path} has format {content['format']}, of pyro_vae {version}; expected {FORMAT}")
    return tensors, content


def pack(name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """A tree as JSON can hold it. Its tensors are added to ``tensors``, under names that begin with ``name``.

    Raises:
        TypeError: If it contains anything but tensors, numbers, strings, lists, tuples and dictionaries.
    """
    from torch import Tensor

    if isinstance(value, Tensor):
        while name in tensors:  # tree["a.b"] and tree["a"]["b"] have the same name, for example
            name += "'"
        tensors[name] = value
        return {"tensor": name}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Real):  # NumPy numbers too
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, list | tuple):
        return {_kind(value): [pack(f"{name}.{i}", each, tensors) for i, each in enumerate(value)]}
    if isinstance(value, dict) and all(type(key) in (str, int) for key in value):
        return {_kind(value): [[key, pack(f"{name}.{key}", each, tensors)] for key, each in value.items()]}
    raise TypeError(
        f"{name} is of type {type(value).__name__}; a checkpoint holds tensors, numbers, strings, lists, tuples and "
        "dictionaries of them"
    )


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that :func:`pack` was given.

    Raises:
        Exception: If ``packed`` is invalid.
    """
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return tensors[content]
    if kind in ("dict", "Counter"):
        if not all(type(key) in (str, int) for key, _ in content):
            raise TypeError("a key is neither a string nor an integer")
        return {"dict": dict, "Counter": Counter}[kind]({key: unpack(each, tensors) for key, each in content})
    return {"list": list, "tuple": tuple}[kind](unpack(each, tensors) for each in content)


def _kind(value: Any) -> str:
    return next(kind.__name__ for kind in (Counter, dict, tuple, list) if isinstance(value, kind))
