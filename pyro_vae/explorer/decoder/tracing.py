"""A module of tensors as a graph of a small set of PyTorch's operators."""

from __future__ import annotations

import warnings
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.system.private_apis import decompositions

# Operators that torch.export keeps by default, and that are made of simpler ones.
COMPOSED = [
    "_fused_rms_norm", "_log_softmax", "_native_batch_norm_legit", "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training", "_softmax", "addcdiv", "addcmul", "elu", "gelu", "glu",
    "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "linalg_vector_norm", "log_sigmoid_forward", "logaddexp",
    "logsumexp", "mish", "native_batch_norm", "native_group_norm", "native_layer_norm", "silu", "softplus", "std",
    "threshold", "upsample_bilinear2d", "upsample_linear1d", "xlogy",
]  # fmt: skip


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
        # torch.export warns about its own future.
        with pyro.validation_enabled(False), warnings.catch_warnings(action="ignore"):
            exported = torch.export.export(module, (z,), strict=False)
            table = torch.export.default_decompositions()
            table.update(decompositions(COMPOSED))
            return exported.run_decompositions(table)
    except Exception as error:  # torch does not document what it raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"the likelihood cannot be exported for the browser: {reason}") from error
