"""Defaults that depend on the data: the likelihood and the networks that suit a user's own file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

import tyro

from pyro_vae.cli.data import Data
from pyro_vae.cli.defaults import CONFIG


def with_defaults_for_data(words: Sequence[str]) -> list[str]:
    """The words of a command line, with the parts and options that suit the data of ``train`` where none are named.

    The parts decide which options there are, so this is done before the options are parsed.

    Raises:
        ValueError: If the data cannot be read; see :meth:`Data.look`.
        OSError: Likewise.
    """
    words = list(words)
    if words[:1] != ["train"] or {"-h", "--help"} & set(words):
        return words
    asked = [_with_hyphens(word) for word in words]
    options = _options(asked)
    if options is None or not options.is_own or not Path(str(options.data)).exists():
        return words  # a file that does not exist is reported later, in its turn
    seen = options.look()
    for flag, value in (("--likelihood", seen.likelihood), ("--network", seen.network)):
        if not _is_among(asked, flag):
            words += [flag, value]
    for flag, values in seen.options.items():
        is_of_other_network = flag.startswith("--network.") and _is_among(asked, "--network")
        if not _is_among(asked, flag) and not is_of_other_network:
            words += [flag, *values]
    return words


def _with_hyphens(word: str) -> str:
    """A word with the name of an option as it is in the help: the parser also takes underscores for hyphens."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def _is_among(words: Sequence[str], flag: str) -> bool:
    return any(word == flag or word.startswith(f"{flag}=") for word in words)


def _options(words: Sequence[str]) -> Data | None:
    """The options that choose the data; None if they cannot be parsed, which is reported later."""
    try:
        with redirect_stderr(io.StringIO()):
            found, _ = tyro.cli(Data, args=words, config=CONFIG, return_unknown_args=True)
    except SystemExit:
        return None
    return found
