"""Saved models on the Hugging Face Hub: only files are moved, and nothing in a repository is ever executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pyro_vae.saving.card import CARD, is_generated
from pyro_vae.saving.file_names import CONFIG, MODEL
from pyro_vae.saving.model_folder import LIBRARY
from pyro_vae.saving.versions import versions
from pyro_vae.system.packages import import_extra
from pyro_vae.system.warning import warn


def may_be_on_the_hub(name: str) -> bool:
    """Whether this may be ``user/name`` on the Hub, and not a path."""
    return len(name) > 0 and name[0] not in "./~\\" and name.count("/") <= 1


def download(repo_id: str, **options: Any) -> Path:
    """Downloads the weights of a model into the cache, and returns their folder. Other files are not downloaded.

    Args:
        repo_id: The name of the model on the Hub, ``user/name``.
        **options: Arguments of ``huggingface_hub.snapshot_download``, such as ``revision`` and ``cache_dir``.

    Raises:
        ImportError: If huggingface_hub is not installed.
        FileNotFoundError: If the repository has no saved model.
        OSError: If it cannot be downloaded.
    """
    problem = f"there is no folder {repo_id!r}; to load it from the Hugging Face Hub, install a package"
    hub = import_extra("huggingface_hub", problem, "hub")
    with _explained(f"there is no folder {repo_id!r}, and it cannot be downloaded from the Hugging Face Hub"):
        folder = hub.snapshot_download(
            repo_id,
            **options,
            allow_patterns=[MODEL, CONFIG],
            library_name=LIBRARY,
            library_version=versions()[LIBRARY],
        )
    if not (Path(folder) / MODEL).exists():
        raise FileNotFoundError(f"{repo_id!r} has no {MODEL} on the Hugging Face Hub, and no other file is loaded")
    return Path(folder)


def push(
    write: Callable[[Path, str], None],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a model of pyro_vae",
    create_pr: bool = False,
) -> str:
    """Uploads a folder in one commit, and returns the address of the commit.

    Args:
        write: Writes the files into a folder, given the name of the model.
        repo_id: The name of the model, ``user/name``. The repository is created if it does not exist.
        private: Whether a new repository is private; by default as the user or the organization has chosen.
        token: The access token; by default that of ``hf auth login``.
        revision: The branch; it is created if it does not exist. By default ``main``.
        commit_message: The message of the commit.
        create_pr: Whether to open a pull request instead of changing the branch.

    Raises:
        ImportError: If huggingface_hub is not installed.
        OSError: If something cannot be written or uploaded.
    """
    hub = import_extra("huggingface_hub", "the Hugging Face Hub needs a package", "hub")
    api = hub.HfApi(token=token, library_name=LIBRARY, library_version=versions()[LIBRARY])
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        write(folder, repo_id)  # before anything is created on the Hub
        with _explained(f"cannot create {repo_id!r} on the Hugging Face Hub"):
            full_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if full_id != repo_id:  # the name had no user
            write(folder, full_id)
        with _explained(f"cannot upload to {full_id!r} on the Hugging Face Hub"):
            if revision is not None and not create_pr:
                api.create_branch(full_id, branch=revision, exist_ok=True)
            if not _may_write_card(api, full_id, revision):
                warn(
                    f"{CARD} of {full_id!r} was edited or not written by pyro_vae, and is kept; delete it to get a "
                    "new card"
                )
                (folder / CARD).unlink()
            commit = api.upload_folder(
                repo_id=full_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
                create_pr=create_pr,
            )
    return str(commit.commit_url)


@contextmanager
def _explained(problem: str) -> Iterator[None]:
    """Turns every error of huggingface_hub into an OSError that begins with the problem."""
    try:
        yield
    except Exception as error:  # of many classes, which differ between its versions and those of its HTTP library
        raise OSError(f"{problem}: {str(error) or type(error).__name__}") from error


def _may_write_card(api: Any, repo_id: str, revision: str | None) -> bool:
    if not api.file_exists(repo_id, CARD, revision=revision):
        return True
    path = api.hf_hub_download(repo_id, CARD, revision=revision)
    return is_generated(Path(path).read_text(errors="replace"))
