"""Imports zuko without its side effect on all other distributions."""

from __future__ import annotations

from torch.distributions import Distribution

from pyro_vae.system.private_apis import validates

_validates = validates(Distribution)

import zuko  # noqa: E402

# Importing zuko switches off the validation of every distribution, including torch's and Pyro's, which should depend on
# Pyro's setting alone. So it is restored here; import zuko only from this module.
Distribution.set_default_validate_args(_validates)

__all__ = ["zuko"]
