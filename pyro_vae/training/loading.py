"""VAEs from the folders that training has left."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from pyro_vae.training.checkpoint import CheckpointError, read
from pyro_vae.training.description import build

__all__ = ["BEST", "LAST", "load", "load_weights"]

LAST, BEST = "last.safetensors", "best.safetensors"
NOT_WEIGHTS = "training:"  # what the names of other tensors begin with

Module = TypeVar("Module", bound=nn.Module)


def load(path: str | Path, vae: nn.Module | None = None) -> Any:
    """Loads a VAE from what :func:`~pyro_vae.fit` has written. Nothing in a file is ever executed.

    Args:
        path: The folder, of which the weights of the best epoch are taken if there was validation, else the last; or
            one of its files.
        vae: Where to load the weights to. Without it, the VAE is rebuilt, if it is made of parts of this library and of
            ``torch.nn``.

    Returns:
        The VAE, on the CPU if it is rebuilt, in evaluation mode.

    Raises:
        FileNotFoundError: If there is nothing.
        CheckpointError: If the file is damaged, not ours, of a newer version or of another architecture, or cannot be
            rebuilt without a VAE.
    """
    path = Path(path)
    if path.is_dir():
        candidates = [path / name for name in (BEST, LAST) if (path / name).exists()]
        if not candidates:
            raise FileNotFoundError(f"there is no checkpoint in the folder {str(path)!r}")
        path = candidates[0]
    tensors, content = read(path)
    if vae is None:
        if content.get("vae") is None:
            reason = content.get("not_describable", "it has parts of its own")
            raise CheckpointError(
                f"{path} cannot be rebuilt ({reason}); make the VAE, and pass it: load(path, vae=...)"
            )
        try:
            vae = build(content["vae"])
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{path} cannot be rebuilt by this version: {error}") from error
    load_weights(path, vae, tensors)
    return vae.eval()


def load_weights(path: Path, vae: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Loads those of the tensors that are weights.

    Raises:
        CheckpointError: If they are of another architecture; the weights are then as they were.
    """
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(NOT_WEIGHTS)}
    mine = vae.state_dict()
    for name in sorted(weights.keys() | mine.keys()):
        there, here = (_describe(some.get(name)) for some in (weights, mine))
        if there != here:
            raise CheckpointError(f"{path} is of another architecture: {name} is {there} there and {here} here")
    vae.load_state_dict(weights)


def _describe(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
