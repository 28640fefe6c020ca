"""Losses besides Pyro's: functions of model, guide and their arguments, in nats, summed over datapoints."""

from pyro_vae.infer.losses.free_bits import FreeBits

__all__ = ["FreeBits"]
