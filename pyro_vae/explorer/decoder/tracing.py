"""A module of tensors as a graph of a small set of PyTorch's operators."""

from __future__ import annotations

import warnings
from typing import Any

import pyro
import torch
from torch import Tensor, nn

__all__ = ["trace"]


@torch.no_grad()
def trace(module: nn.Module, z: Tensor) -> Any:
    """Exports a module with ``torch.export`` and decomposes its operators.

    Args:
        module: A module on the CPU, in evaluation mode.
        z: An input, ``[1, latent]``. The graph is for inputs of exactly this shape.

    Returns:
        The exported program.

    Raises:
        ValueError: If the module cannot be exported.
    """
    try:
        # Checks of values would be part of the graph; they depend on data, which an exported graph cannot.
        with pyro.validation_enabled(False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch.export, about its own future
            exported = torch.export.export(module, (z,), strict=False)
            table = torch.export.default_decompositions()
            table.update(torch._decomp.get_decompositions(_FURTHER))
            return exported.run_decompositions(table)
    except Exception as error:  # torch does not document what it raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"the likelihood cannot be exported for the browser: {reason}") from error


_aten = torch.ops.aten
# Operators that torch.export keeps by default, and that are made of simpler ones.
_FURTHER = [
    _aten._log_softmax,
    _aten._native_batch_norm_legit,
    _aten._native_batch_norm_legit_functional,
    _aten._native_batch_norm_legit_no_training,
    _aten._softmax,
    _aten.addcmul,
    _aten.addcdiv,
    _aten.elu,
    _aten.gelu,
    _aten.glu,
    _aten.hardsigmoid,
    _aten.hardswish,
    _aten.hardtanh,
    _aten.leaky_relu,
    _aten.log_sigmoid_forward,
    _aten.logaddexp,
    _aten.logsumexp,
    _aten.mish,
    _aten.native_batch_norm,
    _aten.native_group_norm,
    _aten.native_layer_norm,
    _aten._fused_rms_norm,
    _aten.silu,
    _aten.softplus,
    _aten.std,
    _aten.threshold,
    _aten.upsample_bilinear2d,
    _aten.upsample_linear1d,
    _aten.xlogy,
]
