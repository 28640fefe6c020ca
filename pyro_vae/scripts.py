"""Helpers for scripts: numbers on an ``argparse`` command line, and a clean exit at Ctrl-C."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Callable

from pyro_vae.checks import check_count, check_positive

__all__ = ["count", "exit_at_interrupt", "positive"]


def count(least: int = 1) -> Callable[[str], int]:
    """The ``type=`` of an option that is an integer of at least ``least``.

    Example:
        >>> from argparse import ArgumentParser
        >>> from pyro_vae.scripts import count
        >>> parser = ArgumentParser()
        >>> option = parser.add_argument("--epochs", type=count(), default=10)
        >>> parser.parse_args(["--epochs", "5"]).epochs
        5
    """

    def parse(text: str) -> int:
        try:
            return check_count("", int(text), least)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not an integer of at least {least}") from None

    return parse


def positive(text: str) -> float:
    """The ``type=`` of an option that is a positive, finite number.

    Example:
        >>> from argparse import ArgumentParser
        >>> from pyro_vae.scripts import positive
        >>> parser = ArgumentParser()
        >>> option = parser.add_argument("--lr", type=positive, default=1e-3)
        >>> parser.parse_args(["--lr", "3e-4"]).lr
        0.0003
    """
    try:
        return check_positive("", float(text))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a positive number") from None


def exit_at_interrupt(main: Callable[[], None], message: str | None = None) -> None:
    """Calls the main function of a script. At Ctrl-C it prints one line and exits with status 130.

    Args:
        main: The function.
        message: The line; by default the message of the exception, or "interrupted".

    Example:
        >>> from pyro_vae.scripts import exit_at_interrupt
        >>> def main():
        ...     raise KeyboardInterrupt
        >>> exit_at_interrupt(main, "stopped")
        Traceback (most recent call last):
            ...
        SystemExit: 130
    """
    try:
        main()
    except KeyboardInterrupt as interrupt:
        print(message or str(interrupt) or "interrupted", file=sys.stderr)
        sys.exit(130)
