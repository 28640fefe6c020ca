"""Loading of saved VAEs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pyro_vae.saving.checkpoint import CheckpointError, blaming, read
from pyro_vae.saving.description import build

LAST, BEST, RUN = "last.safetensors", "best.safetensors", "run.json"  # in the folder of a run
MODEL, CONFIG = "model.safetensors", "config.json"  # in the folder of a saved model
NOT_WEIGHTS = "training:"  # the names of other tensors begin with this
_PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


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
    """
    if vae is not None and not isinstance(vae, nn.Module):
        raise TypeError(f"vae is of type {type(vae).__name__}; expected a module, or None to have it rebuilt")
    path = _existing(path)
    is_folder = path.is_dir()
    if is_folder:
        path = _file_in(path)
    tensors, content = read(path)
    if is_folder and path.name == MODEL:
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


def _existing(path: str | Path) -> Path:
    """Returns the path of a file or folder that exists.

    Raises:
        TypeError: If it is not a path.
        FileNotFoundError: If it does not exist.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path is of type {type(path).__name__}; expected the path of a folder or of a file")
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {str(path)!r}")
    return path


def _file_in(folder: Path) -> Path:
    """The file with the weights in a folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    for name in (BEST, LAST, MODEL):
        if (folder / name).exists():
            return folder / name
    message = f"there is no checkpoint in the folder {str(folder)!r}; expected {BEST}, {LAST} or {MODEL}"
    if pickles := sorted(each.name for each in folder.iterdir() if each.suffix in _PICKLES):
        message += f" ({pickles[0]} may be a pickle, which is never opened)"
    raise FileNotFoundError(message)


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
