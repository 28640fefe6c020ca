"""Loading of saved VAEs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pyro_vae.saving.checkpoint import CheckpointError, blaming, read
from pyro_vae.saving.description import build
from pyro_vae.saving.file_names import CONFIG, MODEL, checkpoint_of

NOT_WEIGHTS = "training:"  # the names of other tensors begin with this


def load(path: str | Path, vae: nn.Module | None = None) -> Any:
    """Loads a VAE that :func:`~pyro_vae.fit` or :func:`~pyro_vae.save` has saved; never executes code from a file.

    Args:
        path: The folder of a run: the weights are those of the best epoch if there was validation, else the last. Or
            the folder of a saved model. Or one file, such as ``model.safetensors``. ``~`` is the home folder.
        vae: The VAE that gets the weights. Without it, the VAE is rebuilt; all its parts must be of this library or of
            ``torch.nn``.

    Returns:
        The VAE, on the CPU if it is rebuilt, in evaluation mode.

    Raises:
        OSError: If there is no file, or it cannot be read.
        CheckpointError: If the file is damaged, not written by this package, of a newer version or of another
            architecture, or if the VAE cannot be rebuilt.

    Example:
        >>> run = fit(vae, x, epochs=2, out="run", progress=False)
        >>> load("run").reconstruct(x).shape
        torch.Size([8, 1, 4, 4])
    """
    if vae is not None and not isinstance(vae, nn.Module):
        raise TypeError(f"vae is of type {type(vae).__name__}; expected a module, or None to have it rebuilt")
    path, given = checkpoint_of(path), path
    tensors, content = read(path)
    if path.name == MODEL and Path(given).expanduser().is_dir():
        _check_config(path.with_name(CONFIG), content.get("vae"))
    weights = weights_among(tensors)
    if vae is None:
        if content.get("vae") is None:
            reason = content.get("not_describable") or "it was not described"
            raise CheckpointError(
                f"{path} cannot be rebuilt ({reason}); construct the VAE and pass it: load(path, vae=...)"
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


def _check_config(path: Path, description: Any) -> None:
    """Checks that a configuration, if there is one, has the description that is in the file of the weights.

    Raises:
        CheckpointError: If it has another one, or cannot be read.
    """
    if not path.exists():  # only the weights were copied, or saving was interrupted
        return
    with blaming(path, "is not the configuration of a model of pyro_vae, or is damaged"):
        is_same = json.loads(path.read_bytes())["vae"] == description
    if not is_same:
        raise CheckpointError(
            f"{path} describes another model than {MODEL}, which has its own description: changes in {CONFIG} have no "
            f"effect; delete it, or load {str(path.with_name(MODEL))!r}"
        )
