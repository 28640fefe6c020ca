"""Loading of trained VAEs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pyro_vae.training.checkpoint import CheckpointError, blaming, read
from pyro_vae.training.description import build

__all__ = ["BEST", "LAST", "check_weights", "load", "weights_among"]

LAST, BEST = "last.safetensors", "best.safetensors"
NOT_WEIGHTS = "training:"  # the names of other tensors begin with this


def load(path: str | Path, vae: nn.Module | None = None) -> Any:
    """Loads a VAE that :func:`~pyro_vae.fit` has saved. Loading never executes code from a file.

    Args:
        path: The folder of the run: the weights are those of the best epoch if there was validation, else the last. Or
            one of its files.
        vae: The VAE that gets the weights. Without it, the VAE is rebuilt; all its parts must be of this library or of
            ``torch.nn``.

    Returns:
        The VAE, on the CPU if it is rebuilt, in evaluation mode.

    Raises:
        OSError: If there is no file, or it cannot be read.
        CheckpointError: If the file is damaged, not written by this package, of a newer version or of another
            architecture, or if the VAE cannot be rebuilt.
    """
    if vae is not None and not isinstance(vae, nn.Module):
        raise TypeError(f"vae is of type {type(vae).__name__}; expected a module, or None to have it rebuilt")
    path = Path(path)
    if path.is_dir():
        candidates = [path / name for name in (BEST, LAST) if (path / name).exists()]
        if not candidates:
            raise FileNotFoundError(f"there is no checkpoint in the folder {str(path)!r}")
        path = candidates[0]
    tensors, content = read(path)
    weights = weights_among(tensors)
    if vae is None:
        if content.get("vae") is None:
            reason = content.get("not_describable") or "it was not described"
            raise CheckpointError(
                f"{path} cannot be rebuilt ({reason}); make the VAE, and pass it: load(path, vae=...)"
            )
        with blaming(path, "cannot be rebuilt by this version"):
            vae = build(content["vae"], weights)
    check_weights(path, vae, weights)
    vae.load_state_dict(weights)
    return vae.eval()


def weights_among(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in a file that are weights."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(NOT_WEIGHTS)}


def check_weights(path: Path, vae: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Checks that a VAE can load these weights.

    Raises:
        CheckpointError: If the weights are of another architecture.
    """
    mine = vae.state_dict()
    for name in sorted(weights.keys() | mine.keys()):
        there, here = (_describe(some.get(name)) for some in (weights, mine))
        if there != here:
            raise CheckpointError(f"{path} is of another architecture: {name} is {there} there and {here} here")


def _describe(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
