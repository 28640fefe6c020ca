"""From programs to steps."""

from pyro_vae.infer.svi import SVI

__all__ = ["SVI"]
