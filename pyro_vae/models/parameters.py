"""Telling Pyro about the parameters of a module, without letting its global store take them over."""

from __future__ import annotations

from contextlib import suppress

import pyro
from torch import nn
from torch.distributions import constraints


def declare_parameters(root: nn.Module, *parts: nn.Module) -> None:
    """Issues one ``pyro.param`` statement for every trainable parameter of the parts, named as in the root.

    ``pyro.module`` returns the parameter that the global store holds under a name, which belongs to another module if
    two modules share the name. Here the store follows the module: it always holds the root's own parameters.
    """
    wanted = {id(parameter) for part in parts for parameter in part.parameters() if parameter.requires_grad}
    store = pyro.get_param_store()
    for name, parameter in root.named_parameters():
        if id(parameter) not in wanted:
            continue
        if name not in store or store[name] is not parameter:
            with suppress(KeyError):  # the name may be new, or its old parameter may have another name as well
                del store[name]
            store.set_state({"params": {name: parameter}, "constraints": {name: constraints.real}})
        pyro.param(name)
