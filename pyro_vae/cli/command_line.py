"""Parses a command line, runs the command, and returns an exit status."""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any

import tyro

import pyro_vae
from pyro_vae.cli.architecture import Architecture
from pyro_vae.cli.data_defaults import with_defaults_for_data
from pyro_vae.cli.defaults import CONFIG
from pyro_vae.cli.encode import Encode
from pyro_vae.cli.evaluate import Evaluate
from pyro_vae.cli.explore import Explore
from pyro_vae.cli.export import Export
from pyro_vae.cli.impute import Impute
from pyro_vae.cli.info import Info
from pyro_vae.cli.plot import Plot
from pyro_vae.cli.sample import Sample
from pyro_vae.cli.score import Score
from pyro_vae.cli.share import Share
from pyro_vae.cli.train import Train

DESCRIPTION = """Trains and evaluates variational autoencoders.

Each command has its own --help. The help of train lists the options of the chosen parts: "pyro-vae train --prior vamp
--help". With --debug, an error is printed with its traceback. "pyro-vae --version" prints the version."""

# Arguments in messages of the library, and the options with the same effect.
ARGUMENTS = {
    "resume=True (on the command line: --resume)": "--resume",
    "resume=True": "--resume",
    "skip_broken=True": "--skip-broken",
    "array=NAME": "--array NAME",
    "size=NUMBER": "--size NUMBER",
    "array is '": "--array is '",
    "labels is '": "--labels is '",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        argv: The arguments, without the program's name; by default those of the process.

    Returns:
        The exit status: 0, 2 after an error, 130 after Ctrl-C.

    Raises:
        SystemExit: After ``--help``, and at SIGTERM while training (143).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        print(f"pyro-vae {pyro_vae.__version__}")
        return 0
    debug = "--debug" in words
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]  # it takes fewer named arguments
            _parse([word for word in words if word != "--debug"])()
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, is gone; Python would fail again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as interrupt:
        print(_line(interrupt) or "interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        line = _line(error) or type(error).__name__
        name = line.partition(" is ")[0]
        flag = f"--{name.replace('_', '-')}"  # what the argument is called in a command line that has it
        line = flag + line.removeprefix(name) if flag in words else line
        print(f"pyro-vae: error: {line}", file=sys.stderr)
        return 2
    return 0


def _parse(words: list[str]) -> Any:
    """The command with its options, to be called.

    Raises:
        ValueError: If there is no such command or option, or a value is invalid.
        SystemExit: After ``--help``.
    """
    words = with_defaults_for_data(words)
    train: Any = Train
    others = (Evaluate, Sample, Plot, Explore, Score, Encode, Impute, Share, Export, Info)
    commands = {"train": train[Architecture.chosen(words)]} | {each.__name__.lower(): each for each in others}
    if words and words[0] not in commands and not words[0].startswith("-"):
        raise ValueError(f"there is no command {words[0]!r}; expected one of {', '.join(commands)}")
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.extras.subcommand_cli_from_dict(
                commands,
                prog="pyro-vae",
                description=DESCRIPTION,
                args=words,
                config=CONFIG,
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise ValueError(_unboxed(box.getvalue())) from None


def _unboxed(box: str) -> str:
    """The text of tyro's error, which is in a box of several sections, without its title and references to help."""
    text = box.partition("\n")[2]
    sections = [" ".join(re.sub("[│╰╯─]", " ", section).split()) for section in re.split("─{5,}", text)]
    said = [section for section in sections if section and not re.match("For full help|Argument help", section)]
    return "; ".join(said) or box


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"pyro-vae: warning: {_line(message)}", file=sys.stderr)


def _line(message: BaseException | str) -> str:
    """A message in one line, with options instead of arguments."""
    text = str(message)
    if "Original Traceback" in text:  # of a process that reads data: its last line is the error
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = " ".join(text.split())
    for argument, option in ARGUMENTS.items():
        text = text.replace(argument, option)
    return text
