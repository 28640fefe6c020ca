"""Whether torch is tracing: then tensors have shapes and dtypes, but no values that can be looked at."""

from __future__ import annotations

import torch

from pyro_vae.system.private_apis import is_transforming


def is_tracing() -> bool:
    """Whether ``torch.export``, ``torch.compile`` or a transform of ``torch.func`` runs the caller.

    All checks of the values of tensors ask this function, and are skipped if it returns True. This is sound: a check
    returns nothing and changes nothing, so that a function without it has the same result for every valid input. Only
    the error for invalid input is lost. It could not be kept, since a traced program is made before there are values,
    and ``vmap`` does not allow a function to look at them. Checks of shapes and dtypes are made while tracing too.
    """
    return torch.compiler.is_compiling() or is_transforming()


def validation() -> bool | None:
    """For ``validate_args`` of distributions: None, which is Pyro's setting, but False while torch is tracing."""
    return False if is_tracing() else None
