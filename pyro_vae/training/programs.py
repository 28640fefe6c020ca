"""A pair of programs as a module, to train their parameters in Pyro's store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import getclosurevars, isfunction
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vae.checks import check_count
from pyro_vae.processes import Processes
from pyro_vae.programs.batch_arguments import BatchArguments
from pyro_vae.programs.called_modules import called_modules
from pyro_vae.system.private_apis import constraint_of
from pyro_vae.system.randomness import generators_kept, reseed
from pyro_vae.training.sources import as_source
from pyro_vae.weights import trace_pair


class Programs(nn.Module):
    """A module with the parameters of two programs: of ``pyro.module``, of modules that are called, of ``pyro.param``.

    The programs are run once to find the parameters; those that are created later are not trained. Parameters of
    ``pyro.param`` stay in Pyro's store, so that constraints hold.

    Args:
        model: The model.
        guide: The guide.
        args: Arguments to run them with.
        kwargs: Keyword arguments, likewise.

    Raises:
        ValueError: If they have no parameters.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        args: tuple[Tensor, ...],
        kwargs: dict[str, Tensor],
    ) -> None:
        super().__init__()
        # Set by setattr, programs that are modules would become submodules.
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "guide", guide)
        given = [getattr(program, "__self__", program) for program in (model, guide)]
        with torch.no_grad(), poutine.trace(param_only=True) as capture, called_modules() as called:
            trace_pair(model, guide, *args, **kwargs)
        modules = [each for each in (*given, *called) if isinstance(each, nn.Module)]
        parts = {id(part) for module in modules for part in list(module.modules())[1:]}
        nodes: dict[str, Any] = dict(capture.trace.nodes)
        sites = {name: site["value"].unconstrained() for name, site in nodes.items()}
        for module in dict.fromkeys(each for each in modules if id(each) not in parts):
            self.add_module(self._name_of(module, sites), module)
        known = {id(parameter) for parameter in self.parameters()}
        for name, leaf in sites.items():
            if id(leaf) not in known:
                self.register_parameter(_plain(name), _as_parameter(name, leaf))
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError("the programs have no parameters to train")

    def _name_of(self, module: nn.Module, sites: dict[str, Tensor]) -> str:
        """Its name in ``pyro.module``, or that of its class; with underscores if the name is taken."""
        mine = {id(parameter) for parameter in module.parameters()}
        names = [name.split("$$$")[0] for name, leaf in sites.items() if "$$$" in name and id(leaf) in mine]
        name = _plain(names[0] if names else type(module).__name__.lower())
        while hasattr(self, name):
            name += "_"
        return name


def as_module(vae: Any, train: Any, batch_size: int, seed: int | None) -> Any:
    """A pair of programs as a module, with the parameters that they have on the first batch; anything else as it is.

    Args:
        vae: See :func:`~pyro_vae.fit`.
        train: Likewise.
        batch_size: Likewise.
        seed: Likewise.

    Raises:
        ValueError: If there is no batch, or the programs have no parameters.
    """
    if not isinstance(vae, tuple) or len(vae) != 2 or not all(map(callable, vae)):
        return vae
    owner: Any = getattr(vae[0], "__self__", None)
    if isinstance(owner, nn.Module) and (getattr(owner, "model", None), getattr(owner, "guide", None)) == vae:
        return owner
    check_count("batch_size", batch_size)
    device = _device_of(vae, train)
    if seed is not None:
        reseed(seed, device)  # the programs may create parameters
    source = as_source(
        train,
        batch_size=batch_size,
        arguments=BatchArguments(vae[0]),
        transform=None,
        device=device,
        dtype=torch.get_default_dtype(),
        seed=0,
        processes=Processes(device),
    )
    with generators_kept(device):
        batch = next(iter(source.epoch(0)), None)
    if batch is None:
        raise ValueError("train has no batches")
    args, kwargs = batch.arguments
    return Programs(*vae, args, kwargs)


def _device_of(programs: Sequence[Callable[..., Any]], data: Any) -> torch.device:
    """The device of the modules that two programs can see, or else of the data."""
    for program in programs:
        seen = [getattr(program, "__self__", program)]
        function = getattr(program, "__func__", program)
        if isfunction(function):
            variables = getclosurevars(function)
            seen += [*variables.nonlocals.values(), *variables.globals.values()]
        for each in seen:
            for parameter in each.parameters() if isinstance(each, nn.Module) else ():
                return parameter.device
    return data.device if isinstance(data, Tensor) else torch.device("cpu")


def _as_parameter(name: str, leaf: Tensor) -> nn.Parameter:
    """A parameter with the same values, which replaces it in Pyro's store."""
    if isinstance(leaf, nn.Parameter):
        return leaf
    store, constraint = pyro.get_param_store(), constraint_of(name)
    del store[name]
    parameter = nn.Parameter(leaf.detach())
    store.set_state({"params": {name: parameter}, "constraints": {name: constraint}})
    return parameter


def _plain(name: str) -> str:
    """A valid name for an attribute."""
    return name.replace(".", "_").replace("$$$", "_")
