"""Writes the page of a VAE and its data."""

from __future__ import annotations

import base64
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae.checks import check_choice, check_count, check_rows
from pyro_vae.evidence import Evidence
from pyro_vae.explorer.arrays import Arrays
from pyro_vae.explorer.decoder.lowering import lower
from pyro_vae.explorer.decoder.mean import MeanDecoder
from pyro_vae.explorer.decoder.program import Program
from pyro_vae.explorer.decoder.tracing import trace
from pyro_vae.explorer.labels import label_names
from pyro_vae.explorer.latent_map import METHODS, LatentMap, latent_map
from pyro_vae.explorer.lowest import Scores, scores, scores_from
from pyro_vae.explorer.page import page
from pyro_vae.explorer.thumbnails import thumbnails
from pyro_vae.explorer.views import as_shown, check_table, view_of
from pyro_vae.models.conditional import ConditionalVAE
from pyro_vae.models.parts_fit import trial
from pyro_vae.models.vae import VAE
from pyro_vae.system.files import replace, writable_folder
from pyro_vae.system.progress import Progress

if TYPE_CHECKING:
    from pyro_vae.tables import Table

__all__ = ["decoder_program", "write"]

ENCODED_AT_ONCE = 1000
CHECKED = 3  # datapoints at whose codes the page compares its decoder with PyTorch
LEAST_VARIANCE = 0.01  # of the mean of an active unit (Burda et al. 2015, section 5.2)


def write(
    vae: VAE | ConditionalVAE,
    x: Tensor,
    path: str | Path,
    *,
    labels: Any = None,
    names_of_labels: Sequence[str] | None = None,
    conditions: Tensor | None = None,
    table: Table | None = None,
    names: Sequence[str] | None = None,
    method: str = "pca",
    points: int = 2000,
    rows: Sequence[int] | None = None,
    lowest: int = 24,
    log_prob: Evidence | None = None,
    title: str = "Latent space explorer",
    subtitle: str = "",
    progress: Progress = True,
) -> Path:
    """Writes one HTML file to explore a VAE in the browser. It contains the decoder and needs no server and no network.

    Args:
        vae: A VAE with a vector of real latents, in one site. A ``ConditionalVAE`` needs ``conditions``.
        x: Data, ``[n, *event]``, on the device of the VAE. NaN is a missing value.
        path: The file, ``.html``.
        labels: A label for each datapoint, ``[n]``: numbers or words. The map is coloured by them.
        names_of_labels: Names of the labels 0, 1, 2, ..., if ``labels`` has these numbers.
        conditions: The conditions of each datapoint of a ``ConditionalVAE``, ``[n, conditions]``.
        table: The columns of a table, with names and categories.
        names: Names of the values of a vector, or of the features of a series.
        method: How more than two latents are put in a plane: ``pca``, or ``umap`` with the extra ``[umap]``.
        points: The largest number of datapoints on the page. They are drawn at random, without replacement, with torch's
            generators.
        rows: Which number each row of x has, for the page, such as its row in a file. By default 0, 1, 2, ...
        lowest: The number of datapoints with the lowest log p(x) to show. 0: log p(x) is not computed.
        log_prob: What ``evidence.estimate`` returned for x. By default, log p(x) is estimated for the datapoints where a
            bound from importance sampling is lowest.
        title: The title of the page.
        subtitle: A line below it, such as the name of the data.
        progress: Whether to show a progress bar while log p(x) is computed; or a function that wraps an iterable.

    Returns:
        The path of the file.

    Raises:
        TypeError: If the VAE is of another class, or x is not a tensor or has another dtype than the data of the VAE.
        ValueError: If an argument is invalid, x does not fit the VAE, its latents are not real vectors, or its decoder
            has an operator that the page does not have.
        ImportError: If the method is ``umap`` and umap-learn is not installed.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> from pyro_vae import explorer
        >>> path = explorer.write(vae, x, f"{tempfile.mkdtemp()}/explorer.html", lowest=2, progress=False)
        >>> path.name
        'explorer.html'
    """
    path = Path(path)
    if path.suffix != ".html":
        raise ValueError(f"path is {str(path)!r}; expected a file .html")
    writable_folder(path.parent)
    check_choice("method", method, METHODS)
    points, lowest = check_count("points", points), check_count("lowest", lowest, least=0)
    check_rows(x)
    check_vae(vae, x, conditions)
    if table is not None:
        check_table(table, tuple(x.shape[1:]))
    index, all_labels = label_names(labels, names_of_labels, len(x))
    numbers = torch.arange(len(x)) if rows is None else torch.as_tensor(rows)
    if numbers.shape != (len(x),):
        raise ValueError(f"rows has shape {list(numbers.shape)}; expected [{len(x)}], a number for each datapoint")
    program = decoder_program(vae)
    chosen = torch.randperm(len(x))[:points].sort().values
    here = chosen.to(x.device)
    shown = x[here]
    y = None if conditions is None else conditions[here]
    z = _codes(vae, shown, y)
    view = view_of(shown.cpu(), table, names)
    mapped = latent_map(z, method)
    data = shown if y is None else (shown, y)
    found: Scores | None = None
    if log_prob is not None:
        found = scores_from(log_prob, chosen, len(x), lowest)
    elif lowest:
        found = scores(vae, data, len(shown), lowest, progress)
    arrays = Arrays()
    content = {
        "title": title,
        "subtitle": subtitle,
        "total": len(x),
        "view": view,
        "latent": _latent(vae, z),
        "map": _map(mapped, arrays),
        "labels": None if index is None else all_labels,
        "conditions": None if y is None else _conditions(y, names_of_labels),
        "lowest": None if found is None else {"points": found.lowest, "how": found.how},
        "program": _program(program, arrays),
        "check": _check(vae, z[:CHECKED], None if y is None else y[:CHECKED], arrays),
    }
    arrays.add("z", z)
    arrays.add("rows", numbers[chosen])
    if index is not None:
        arrays.add("labels", index[chosen])
    if y is not None:
        arrays.add("conditions", y)
    if found is not None:
        arrays.add("log_prob", found.log_prob)
        arrays.add("error", found.error)
    _show(as_shown(shown.cpu(), view), view, arrays)
    content["arrays"] = arrays.places
    replace(path, page(title, content, arrays.text()).encode("utf-8", "replace"))
    return path


def check_vae(vae: Any, x: Tensor, conditions: Tensor | None) -> None:
    """Checks that the page can show this VAE and its data.

    Raises:
        TypeError: If it cannot.
        ValueError: Likewise.
    """
    if not isinstance(vae, (VAE, ConditionalVAE)):
        raise TypeError(
            f"vae is of type {type(vae).__name__}; the explorer shows a VAE or a ConditionalVAE, which have one vector "
            "of latents"
        )
    if isinstance(vae, ConditionalVAE) != (conditions is not None):
        expected = "no conditions" if isinstance(vae, VAE) else "conditions, [n, conditions]"
        raise ValueError(f"vae is a {type(vae).__name__}; expected {expected}")
    with trial({"vae": vae}):
        z = vae.prior().sample((1,))
    if z.ndim != 2 or not z.is_floating_point():
        raise ValueError(
            f"the latents of the VAE have shape {list(z.shape[1:])} and dtype {z.dtype}; the explorer shows vectors of "
            "real latents"
        )
    vae.check(x)
    if isinstance(vae, ConditionalVAE):
        vae.check_conditions(conditions, len(x))


def decoder_program(vae: Any) -> Program:
    """The decoder of a VAE, from z (and conditions, appended) to the mean of p(x | z), as the page runs it.

    Raises:
        ValueError: If it cannot be exported, or has an operator that the page does not have.
    """
    decoder = MeanDecoder(copy.deepcopy(vae.likelihood).cpu()).eval()
    with trial({"vae": vae}):
        z = vae.prior().sample((1,)).cpu()
    if isinstance(vae, ConditionalVAE):
        z = torch.cat([z, z.new_zeros(1, vae.conditions)], dim=-1)
    return lower(trace(decoder, z))


@torch.no_grad()
def _codes(vae: Any, x: Tensor, y: Tensor | None) -> Tensor:
    """The codes of x, ``[n, latent]``, on the CPU."""
    with trial({"vae": vae}):
        parts = zip(x.split(ENCODED_AT_ONCE), [None] * len(x) if y is None else y.split(ENCODED_AT_ONCE), strict=False)
        return torch.cat([vae.codes(*(each for each in part if each is not None))["z"].cpu() for part in parts])


def _latent(vae: Any, z: Tensor) -> dict[str, Any]:
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


def _map(mapped: LatentMap, arrays: Arrays) -> dict[str, Any]:
    arrays.add("positions", mapped.positions)
    if mapped.axes is not None and mapped.center is not None:
        arrays.add("axes", mapped.axes)
        arrays.add("center", mapped.center)
    return {"method": mapped.method, "explained": list(mapped.explained)}


def _conditions(y: Tensor, names: Sequence[str] | None) -> dict[str, Any]:
    """Conditions as a choice among classes if every row is one-hot, else as numbers."""
    is_choice = y.shape[1] > 1 and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())
    has_names = names is not None and len(names) == y.shape[1]
    return {
        "choice": is_choice,
        "names": [str(each) for each in names] if names is not None and has_names else [str(i) for i in range(y.shape[1])],
        "low": y.min(0).values.tolist(),
        "high": y.max(0).values.tolist(),
    }


def _program(program: Program, arrays: Arrays) -> dict[str, Any]:
    for number, values in program.constants.items():
        arrays.add(f"weights {number}", values)
    return {
        "input": program.input,
        "outputs": program.outputs,
        "sizes": program.sizes,
        "constants": list(program.constants),
        "operations": program.operations,
    }


@torch.no_grad()
def _check(vae: Any, z: Tensor, y: Tensor | None, arrays: Arrays) -> int:
    """Adds latents and what PyTorch decodes them to, so that the page can compare. Returns their number."""
    inputs = z if y is None else torch.cat([z, y.cpu()], dim=-1)
    with trial({"vae": vae}):
        device = next(vae.parameters(), torch.empty(0)).device
        means = vae.likelihood(inputs.to(device)).mean.cpu()
    arrays.add("check inputs", inputs)
    arrays.add("check outputs", means.float())
    return len(z)


def _show(values: Tensor, view: dict[str, Any], arrays: Arrays) -> None:
    """Adds what is shown of the datapoints."""
    if view["kind"] != "image":
        arrays.add("x", values)
        return
    sprite = thumbnails(values)
    view["thumbnails"] = {
        "columns": sprite.columns,
        "height": sprite.height,
        "width": sprite.width,
        "png": base64.b64encode(sprite.png).decode(),
    }
