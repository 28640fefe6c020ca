"""The command ``pyro-vae``: training, evidence, samples and pictures without a program of one's own."""

from pyro_vae.cli.command_line import main

__all__ = ["main"]
