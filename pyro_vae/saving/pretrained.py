"""A saved model with a model card and pictures: the layout of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pyro_vae.saving.card import CARD, is_generated, model_card
from pyro_vae.saving.description import describe_if_possible
from pyro_vae.saving.model_folder import save
from pyro_vae.system.files import replace
from pyro_vae.system.warning import warn

PICTURES = (".gif", ".jpeg", ".jpg", ".png", ".svg", ".webp")


def save_with_card(
    vae: nn.Module, folder: str | Path, name: str | None, pictures: Iterable[str | Path], **words: Any
) -> None:
    """Saves a model, then copies pictures, then writes the card; everything is checked before the first file.

    Args:
        vae: The model.
        folder: The folder.
        name: The name of the model; by default that of the folder.
        pictures: Picture files.
        **words: The other arguments of :func:`~pyro_vae.saving.card.model_card`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a file is not a picture, or two have the same name.
        FileExistsError: If something else is in the folder.
        OSError: If a file cannot be read or written.
    """
    folder = Path(folder).expanduser()
    contents = _read_pictures(pictures)
    card = model_card(
        vae, name or folder.resolve().name, reason=describe_if_possible(vae)[1], pictures=[*contents], **words
    )
    save(vae, folder)
    for file, content in contents.items():
        replace(folder / file, content)
    path = folder / CARD
    if path.exists() and not is_generated(path.read_text(errors="replace")):
        warn(f"{str(path)!r} was edited or not written by pyro_vae, and is kept; delete it to get a new card")
    else:
        replace(path, card.encode())


def _read_pictures(pictures: Iterable[str | Path]) -> dict[str, bytes]:
    """The contents of picture files by their names."""
    if isinstance(pictures, str | Path):
        raise TypeError(f"pictures is {str(pictures)!r}; expected a list of files")
    paths: Sequence[Path] = [Path(each).expanduser() for each in pictures]
    for path in paths:
        if path.suffix.lower() not in PICTURES:
            raise ValueError(f"{str(path)!r} is not a picture; expected {', '.join(PICTURES)}")
        if [each.name for each in paths].count(path.name) > 1:
            raise ValueError(f"two pictures have the name {path.name!r}")
    return {path.name: path.read_bytes() for path in paths}
