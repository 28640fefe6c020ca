"""The folder of a saved model: its weights with their description, and the same description for people to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from pyro_vae.saving.checkpoint import FORMAT, write
from pyro_vae.saving.description import describe_if_possible
from pyro_vae.saving.file_names import BEST, CONFIG, LAST, MODEL, RUN
from pyro_vae.saving.versions import versions
from pyro_vae.system.files import replace, writable_folder
from pyro_vae.system.lock import locked
from pyro_vae.system.warning import warn

LIBRARY = "pyro_vae"


def save(vae: nn.Module, folder: str | Path) -> None:
    """Saves a VAE, so that :func:`~pyro_vae.load` rebuilds it from the folder alone.

    The folder gets ``model.safetensors``, with the weights and a description of the VAE, and ``config.json``, with the
    same description for people to read. A model that was saved there earlier is replaced; at every moment, also after
    a crash, the folder contains the old or the new model. Nothing about the training is saved: for this, pass ``out``
    to :func:`~pyro_vae.fit`.

    Args:
        vae: The VAE, or any other module. If a part is neither of this library nor of ``torch.nn``, there is a warning,
            and the weights can be loaded with ``load(folder, vae=...)``.
        folder: The folder; it is created if it does not exist. ``~`` is the home folder.

    Raises:
        TypeError: If the VAE is not a module, or has a state that is not a tensor.
        FileExistsError: If there is a run of :func:`~pyro_vae.fit` in the folder, or a model of another library.
        OSError: If a file cannot be written; the old model can still be loaded.

    Example:
        >>> save(vae, "model")
        >>> load("model").latent_shape
        torch.Size([2])
    """
    weights = _weights_of(vae)
    description, reason = describe_if_possible(vae)
    content = {"versions": versions(), "vae": description, "not_describable": reason}
    config = {"library_name": LIBRARY, "architectures": [type(vae).__name__], "format": FORMAT, **content}
    folder = Path(folder).expanduser()
    _check_may_be_written(folder)
    with locked(writable_folder(folder)):
        # A configuration beside other weights would be refused: so there is none until the weights are there.
        (folder / CONFIG).unlink(missing_ok=True)
        write(folder / MODEL, weights, content)
        replace(folder / CONFIG, f"{json.dumps(config, indent=2)}\n".encode())
    if description is None:
        warn(
            f"the weights are saved in {str(folder)!r}, but the {type(vae).__name__} cannot be rebuilt from them "
            f"({reason}); to load it, construct it and pass it: load(path, vae=...)"
        )


def _weights_of(vae: Any) -> dict[str, Tensor]:
    if not isinstance(vae, nn.Module):
        words = "; pass run.vae" if isinstance(getattr(vae, "vae", None), nn.Module) else ""
        raise TypeError(f"vae is of type {type(vae).__name__}; expected a module{words}")
    weights = vae.state_dict()
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is of type {type(value).__name__}; expected a tensor, as only these can be saved")
        if hasattr(value, "full_tensor"):  # a DTensor
            raise TypeError(f"{name} is sharded over several processes; the folder of the run has all of it")
    return weights


def _check_may_be_written(folder: Path) -> None:
    """Checks that only files of an older saved model would be replaced.

    Raises:
        FileExistsError: If other files would be replaced.
    """
    for name in (LAST, BEST, RUN):
        if (folder / name).exists():
            raise FileExistsError(f"there is a run of fit in {str(folder)!r} ({name}): choose another folder")
    for path in (folder / MODEL, folder / CONFIG):
        if path.exists() and not _is_ours(path):
            raise FileExistsError(
                f"{str(path)!r} is not of a model of pyro_vae, or is damaged: delete it, or choose another folder"
            )


def _is_ours(path: Path) -> bool:
    try:
        if path.name == CONFIG:
            return json.loads(path.read_bytes())["library_name"] == LIBRARY
        with safe_open(path, "pt") as file:
            return LIBRARY in (file.metadata() or {})
    except Exception:  # a file may have any content, and safe_open does not document what it raises
        return False
