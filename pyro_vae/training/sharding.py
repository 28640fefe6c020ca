"""Parameters spread over processes, for models that do not fit on one device (FSDP; Zhao et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vae.infer.losses.as_function import as_function
from pyro_vae.processes import Processes
from pyro_vae.system.trees import map_leaves


def shard(vae: nn.Module, processes: Processes) -> None:
    """Spreads the parameters of networks over the processes; each layer gathers its own while it computes.

    Networks are modules of ``torch.nn``: they return tensors, which FSDP needs to know when gradients are complete.
    Other parameters of the parts (components of a mixture, a scale, flows) are small, and stay whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(processes.device.type, (processes.size,))
    for network in _networks(vae):
        for layer in reversed([*network.modules()]):  # the network itself comes last
            if layer is network or any(True for _ in layer.parameters(recurse=False)):
                fully_shard(layer, mesh=mesh)


def _networks(module: nn.Module) -> list[nn.Module]:
    """The outermost modules of ``torch.nn`` that have parameters."""
    if not any(True for _ in module.parameters()):
        return []
    if type(module).__module__.startswith("torch.nn.modules") and not isinstance(module, nn.ModuleList):
        return [module]
    return list(dict.fromkeys(network for child in module.children() for network in _networks(child)))


def gathered(tree: Any) -> Any:
    """The tree with whole tensors instead of spread ones. All processes must call this."""
    return map_leaves(lambda leaf: leaf.full_tensor() if _is_spread(leaf) else leaf, tree)


def whole_and_shards(tensors: Sequence[Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors that each process has whole, and the shards that this process has of the others."""
    whole = [tensor for tensor in tensors if not _is_spread(tensor)]
    return whole, [tensor.to_local() for tensor in tensors if _is_spread(tensor)]


def sharded_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """A ``state_dict`` of whole tensors, spread like the parameters of the optimizer."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = {
        index: {name: spread_as(parameters[index], value) for name, value in each.items()}
        for index, each in state["state"].items()
    }
    return {**state, "state": states}


@torch.no_grad()
def load_weights(vae: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads a ``state_dict`` of whole tensors, or of tensors spread like those of the VAE."""
    for name, tensor in vae.state_dict().items():
        tensor.copy_(spread_as(tensor, weights[name]))


def spread_as(tensor: Any, value: Any) -> Any:
    """A whole value spread like the tensor; anything else as it is."""
    is_whole = isinstance(value, Tensor) and not _is_spread(value) and value.shape == tensor.shape
    if not _is_spread(tensor) or not is_whole:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, tensor.device_mesh, tensor.placements)


def _is_spread(value: Any) -> bool:
    """Whether it is a ``DTensor``, whose import takes a second."""
    return hasattr(value, "full_tensor")


class ShardedLoss:
    """A loss scaled so that FSDP, which averages gradients over processes, gives the gradient of the sum.

    Args:
        loss: An ELBO of Pyro, or a function of model, guide and their arguments.
        size: The number of processes.
    """

    def __init__(self, loss: Any, size: int) -> None:
        self.loss = as_function(loss)
        self.size = size
        self.counts = True  #: Whether this process has a share of the batch.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The loss times the number of processes, or 0 if this process has no share."""
        return self.loss(*args, **kwargs) * (self.size if self.counts else 0)
