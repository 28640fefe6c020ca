"""The command ``pyro-vae``: training, evidence, samples and pictures without writing a program."""

from pyro_vae.cli.command_line import main

__all__ = ["main"]
