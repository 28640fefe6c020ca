"""The package zuko, imported without what its import does to all of torch's distributions."""

from __future__ import annotations

from torch.distributions import Distribution

from pyro_vae.system.private_apis import validates

_validates = validates(Distribution)

import zuko  # noqa: E402

# zuko switches the validation of every distribution off, torch's and Pyro's included; whether they validate is for
# Pyro's switch to say. Import zuko from here: a later import does nothing.
Distribution.set_default_validate_args(_validates)

__all__ = ["zuko"]
