"""Computes no gradients, or computes them also inside ``torch.no_grad`` and ``torch.inference_mode``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from pyro_vae.system.private_apis import is_transforming

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@contextmanager
def gradients_enabled() -> Iterator[None]:
    """Enables gradients, also if a caller has disabled them."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@torch.inference_mode(False)
def differentiable(x: Tensor) -> Tensor:
    """The tensor, copied if it was made in inference mode, since such tensors cannot be used for gradients."""
    return x.clone() if x.is_inference() else x


def without_gradients(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function under ``torch.no_grad``, except inside a transform of ``torch.func``.

    There, such as in ``jacrev``, it would make all derivatives zero.
    """

    @wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if is_transforming():
            return function(*args, **kwargs)
        with torch.no_grad():
            return function(*args, **kwargs)

    return called
