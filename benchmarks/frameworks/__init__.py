"""The contestants of the speed benchmarks: one file for each framework, which builds the model and trains it.

Each file has a class ``Training(work, images, **options)`` with

- ``run(steps)``: so many steps of training; the mean of their losses, in nats per image
- ``train()``: the epochs of ``work``, with its learning rates (only for the model ``mlp``)
- ``weights()``: the arrays of its linear layers as PyTorch has them, the encoder's first
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from frameworks.work import Work

__all__ = ["CONTESTANTS", "Contestant", "Training", "Work", "reason_to_leave_out", "start"]


class Training(Protocol):
    """A model and its optimizer."""

    def run(self, steps: int) -> float: ...
    def train(self) -> None: ...
    def weights(self) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class Contestant:
    """Which file, the package it needs, the options of its ``Training``, and the models it lacks, with reasons."""

    file: str
    package: str
    options: dict[str, Any] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)


_SAMPLED = {"flow": "the KL divergence from a flow has no formula: see Trace_ELBO"}
CONTESTANTS = {
    "Pyro, TraceMeanField_ELBO": Contestant("with_pyro", "pyro", {"elbo": "TraceMeanField_ELBO"}, _SAMPLED),
    "Pyro, Trace_ELBO": Contestant("with_pyro", "pyro", {"elbo": "Trace_ELBO"}),
    "Pyro, TraceMeanField_ELBO, fused Adam": Contestant(
        "with_pyro", "pyro", {"elbo": "TraceMeanField_ELBO", "fused": True}, _SAMPLED
    ),
    "Pyro, JitTrace_ELBO": Contestant("with_pyro", "pyro", {"elbo": "JitTrace_ELBO"}),
    "by hand": Contestant("by_hand", "torch"),
    "by hand, torch.compile": Contestant("by_hand", "torch", {"compiled": True}),
    "by hand, torch.compile, bfloat16": Contestant("by_hand", "torch", {"compiled": True, "bfloat16": True}),
    "NumPyro": Contestant("with_numpyro", "numpyro"),
    "pythae": Contestant("with_pythae", "pythae", {}, {"flow": "its IAF takes no context from the encoder"}),
    **{
        f"pyro_vae, {kind}{', bfloat16' if precision == 'bfloat16' else ''}": Contestant(
            "with_pyro_vae", "pyro_vae", {"compile": compile_, "precision": precision}
        )
        for kind, compile_ in {"graph": "graph", "compiled": True, "auto": "auto"}.items()
        for precision in ("float32", "bfloat16")
    },
    "matrix products": Contestant("matrix_products", "torch"),
    "matrix products, bfloat16": Contestant("matrix_products", "torch", {"bfloat16": True}),
}


def reason_to_leave_out(name: str, model: str) -> str | None:
    contestant = CONTESTANTS[name]
    if find_spec(contestant.package) is None:
        return f"{contestant.package} is not installed"
    return contestant.lacks.get(model)


def start(name: str, work: Work, images: np.ndarray) -> Training:
    """Only the packages that this contestant needs are imported."""
    contestant = CONTESTANTS[name]
    return import_module(f"frameworks.{contestant.file}").Training(work, images, **contestant.options)
