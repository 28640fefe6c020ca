"""Files of tensors and a text, with a checksum, which can be read without executing anything.

The text can be read without torch, whose import takes seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


# torch's names of the dtypes in a safetensors file.
_DTYPES = {
    "BOOL": "torch.bool",
    "C64": "torch.complex64",
    "F8_E4M3": "torch.float8_e4m3fn",
    "F8_E5M2": "torch.float8_e5m2",
    "BF16": "torch.bfloat16",
    **{f"F{bits}": f"torch.float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"torch.int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"torch.uint{bits}" for bits in (8, 16, 32, 64)},
}


class ChecksumError(ValueError):
    """The content of a file differs from what was written to it."""


def to_bytes(tensors: Mapping[str, Tensor], text: str) -> bytes:
    """The content of a safetensors file with tensors, a text and a checksum of both."""
    from safetensors.torch import save

    # Copies, since safetensors refuses tensors that share memory, such as those of a part that is used twice.
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return save(copies, {"pyro_vae": text, "sha256": _digest(_stored(copies), text)})


def from_bytes(data: bytes) -> tuple[dict[str, Tensor], str]:
    """The tensors, on the CPU, and the text that were passed to :func:`to_bytes`.

    Raises:
        ChecksumError: If the checksum does not match.
        Exception: If this is another kind of file; libraries do not document what they raise for invalid files.
    """
    from safetensors.torch import load

    tensors = load(data)
    text = _checked(data, _stored(tensors))
    return {name: tensors[name].clone() for name in sorted(tensors)}, text  # cloned into aligned memory


def text_of(data: bytes) -> str:
    """The text alone, without importing torch; the checksum is that of the tensors too.

    Raises:
        Exception: As :func:`from_bytes`.
    """
    from safetensors import deserialize

    stored = ((name, _DTYPES[each["dtype"]], each["shape"], each["data"]) for name, each in deserialize(data))
    return _checked(data, stored)


def _checked(data: bytes, stored: Iterable[tuple[str, Any, Sequence[int], Any]]) -> str:
    """The text in a file with these tensors: name, dtype, shape and bytes of each.

    Raises:
        ChecksumError: If the checksum does not match.
    """
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    if metadata["sha256"] != _digest(stored, metadata["pyro_vae"]):
        raise ChecksumError("its checksum does not match")
    return metadata["pyro_vae"]


def _digest(stored: Iterable[tuple[str, Any, Sequence[int], Any]], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, dtype, shape, content in sorted(stored, key=itemgetter(0)):
        digest.update(f"\n{name} {dtype} {list(shape)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _stored(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Any, Sequence[int], Any]]:
    import torch

    for name, tensor in tensors.items():
        yield name, tensor.dtype, tensor.shape, tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
