"""Numbers on the command line of a program that uses ``argparse``: what is wrong with one is said in a sentence."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

from pyro_vae.checks import check_count, check_positive

__all__ = ["count", "positive"]


def count(least: int = 1) -> Callable[[str], int]:
    """The ``type=`` of an option that is an integer of at least so much."""

    def parse(text: str) -> int:
        try:
            return check_count("", int(text), least)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not an integer of at least {least}") from None

    return parse


def positive(text: str) -> float:
    """The ``type=`` of an option that is a positive, finite number."""
    try:
        return check_positive("", float(text))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a positive number") from None
