"""Parts of the content of the page, as JSON and arrays."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vae.explorer.arrays import Arrays
from pyro_vae.explorer.decoder.program import Program
from pyro_vae.explorer.latent_map import LatentMap
from pyro_vae.explorer.thumbnails import thumbnails
from pyro_vae.models.parts_fit import trial

LEAST_VARIANCE = 0.01  # of the mean of an active unit (Burda et al. 2015, section 5.2)


def latent_section(vae: Any, z: Tensor) -> dict[str, Any]:
    """What the sliders need: the units in the order of the variance of the codes, and their ranges."""
    variance = z.var(0, correction=1 if len(z) > 1 else 0)
    low, high = z.min(0).values.clamp_max(-3.0), z.max(0).values.clamp_min(3.0)
    with trial({"vae": vae}):
        support = str(vae.prior().support) if hasattr(vae.prior(), "support") else ""
    return {
        "size": z.shape[1],
        "order": variance.argsort(descending=True, stable=True).tolist(),
        "variance": [round(each, 6) for each in variance.tolist()],
        "active": int((variance > LEAST_VARIANCE).sum()),
        "low": [round(each, 3) for each in low.tolist()],
        "high": [round(each, 3) for each in high.tolist()],
        "sphere": "sphere" in support.lower(),
    }


def map_section(mapped: LatentMap, arrays: Arrays) -> dict[str, Any]:
    """What the map needs besides the codes."""
    arrays.add("positions", mapped.positions)
    if mapped.axes is not None and mapped.center is not None:
        arrays.add("axes", mapped.axes)
        arrays.add("center", mapped.center)
    return {"method": mapped.method, "explained": list(mapped.explained)}


def condition_section(y: Tensor, names: Sequence[str] | None) -> dict[str, Any]:
    """Conditions as a choice among classes if every row is one-hot, else as numbers."""
    is_choice = y.shape[1] > 1 and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())
    has_names = names is not None and len(names) == y.shape[1]
    return {
        "choice": is_choice,
        "names": [str(each) for each in names]
        if names is not None and has_names
        else [str(i) for i in range(y.shape[1])],
        "low": y.min(0).values.tolist(),
        "high": y.max(0).values.tolist(),
    }


def program_section(program: Program, arrays: Arrays) -> dict[str, Any]:
    """The decoder, with its weights among the arrays."""
    for number, values in program.constants.items():
        arrays.add(f"weights {number}", values)
    return {**vars(program), "constants": list(program.constants)}


@torch.no_grad()
def check_section(vae: Any, z: Tensor, y: Tensor | None, arrays: Arrays) -> int:
    """Adds latents and their decoded means from PyTorch, so that the page can compare. Returns their number."""
    inputs = z if y is None else torch.cat([z, y.cpu()], dim=-1)
    with trial({"vae": vae}):
        device = next(vae.parameters(), torch.empty(0)).device
        means = vae.likelihood(inputs.to(device)).mean.cpu()
    arrays.add("check inputs", inputs)
    arrays.add("check outputs", means.float())
    return len(z)


def add_datapoints(values: Tensor, view: dict[str, Any], arrays: Arrays) -> None:
    """Adds the datapoints as they are shown."""
    if view["kind"] != "image":
        arrays.add("x", values)
        return
    sprite = thumbnails(values)
    view["thumbnails"] = {**vars(sprite), "png": base64.b64encode(sprite.png).decode()}
