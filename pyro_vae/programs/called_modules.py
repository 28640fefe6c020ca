"""The modules that programs call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def called_modules() -> Iterator[dict[nn.Module, None]]:
    """Notes the modules that are called in the context, in order: they are the keys of the dictionary."""
    called: dict[nn.Module, None] = {}
    with register_module_forward_pre_hook(lambda module, _: called.setdefault(module)):
        yield called
