"""Saves models with a model card, loads them by name, and uploads them to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from torch import nn

from pyro_vae.saving.hub import download, may_be_on_the_hub, push
from pyro_vae.saving.loading import load
from pyro_vae.saving.pretrained import save_with_card


class Pretrained:
    """Methods of all models for sharing, with the usual names and arguments of the Hugging Face Hub.

    They do not build on ``huggingface_hub.ModelHubMixin``: it would have to be installed, and it opens pickles.
    """

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        evidence: Any = None,
        data: str | None = None,
        settings: Mapping[str, Any] | None = None,
        pictures: Iterable[str | Path] = (),
        license: str | None = None,  # noqa: A002  # the name that the Hub has for it
        tags: Iterable[str] = (),
        name: str | None = None,
    ) -> None:
        """Saves the model as :func:`~pyro_vae.save` does, with a model card ``README.md`` in the Hub's format.

        Args:
            folder: The folder; it is created if it does not exist.
            evidence: An estimate of log p(x), from ``evidence.estimate``: the card shows it with its error.
            data: The training data, in words.
            settings: The settings of training, by name.
            pictures: Picture files, which are copied into the folder and shown in the card.
            license: The identifier of a licence on the Hub, such as ``"mit"``.
            tags: Tags, besides those of the library.
            name: The name of the model: ``user/name`` on the Hub; by default the name of the folder.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If a file is not a picture, or two have the same name.
            FileExistsError: If there is a run of ``fit`` in the folder, or a model of another library.
            OSError: If a file cannot be read or written.
        """
        model: Any = self  # a module, which this class cannot say
        save_with_card(
            model,
            folder,
            name,
            pictures,
            evidence=evidence,
            data=data,
            settings=settings,
            license=license,
            tags=tags,
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        vae: nn.Module | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Loads a model from the Hugging Face Hub, or from a folder or file as :func:`~pyro_vae.load` does.

        Only ``model.safetensors`` and ``config.json`` are downloaded. Nothing in them is executed.

        Args:
            name_or_folder: ``user/name`` on the Hub; or a path, which is looked for first.
            vae: The model that gets the weights, if it has parts that are not of this library.
            revision: A branch, a tag or a commit; by default the newest commit.
            token: The access token; by default that of ``hf auth login``.
            cache_dir: The folder of the cache; by default that of huggingface_hub.
            local_files_only: Whether to look only in the cache.
            force_download: Whether to download files that are in the cache already.

        Returns:
            The model, on the CPU, in evaluation mode.

        Raises:
            ImportError: If it is on the Hub, and huggingface_hub is not installed (``pip install 'pyro-vae[hub]'``).
            OSError: If it cannot be found, downloaded or read.
            CheckpointError: If a file is damaged, not written by this package, or of another architecture.
            TypeError: If the model is of another class.
        """
        path = Path(name_or_folder).expanduser()
        if not path.exists() and isinstance(name_or_folder, str) and may_be_on_the_hub(name_or_folder):
            path = download(
                name_or_folder,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        loaded = load(path, vae)
        if not isinstance(loaded, cls):
            kind, words = type(loaded).__name__, str(name_or_folder)
            raise TypeError(f"{words!r} is a {kind}; expected a {cls.__name__}: call {kind}.from_pretrained")
        return loaded

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a model of pyro_vae",
        create_pr: bool = False,
        **card: Any,
    ) -> str:
        """Uploads what :meth:`save_pretrained` writes to the Hugging Face Hub, in one commit.

        Args:
            repo_id: The name of the model, ``user/name``. The repository is created if it does not exist.
            private: Whether a new repository is private; by default as the user or the organization has chosen.
            token: The access token; by default that of ``hf auth login``.
            revision: The branch; it is created if it does not exist. By default ``main``.
            commit_message: The message of the commit.
            create_pr: Whether to open a pull request instead of changing the branch.
            **card: The arguments of :meth:`save_pretrained`, except ``name``.

        Returns:
            The address of the commit.

        Raises:
            ImportError: If huggingface_hub is not installed (``pip install 'pyro-vae[hub]'``).
            OSError: If something cannot be read, written or uploaded.
        """
        return push(
            lambda folder, name: self.save_pretrained(folder, name=name, **card),
            repo_id,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )
