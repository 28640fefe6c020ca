"""Writes the page of a VAE and its data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae.checks import check_choice, check_count, check_rows
from pyro_vae.evidence import Evidence
from pyro_vae.explorer.arrays import Arrays
from pyro_vae.explorer.decoder.export import decoder_program
from pyro_vae.explorer.explorable import check_vae
from pyro_vae.explorer.labels import label_names
from pyro_vae.explorer.latent_map import METHODS, latent_map
from pyro_vae.explorer.lowest import Scores, scores, scores_from
from pyro_vae.explorer.page import page
from pyro_vae.explorer.sections import (
    add_datapoints,
    check_section,
    condition_section,
    latent_section,
    map_section,
    program_section,
)
from pyro_vae.explorer.views import as_shown, check_table, view_of
from pyro_vae.likelihoods import Columns, Incomplete
from pyro_vae.models import VAE, ConditionalVAE
from pyro_vae.models.parts_fit import trial
from pyro_vae.nn.kind import Kind
from pyro_vae.system.files import replace, writable_folder
from pyro_vae.system.progress import Progress

if TYPE_CHECKING:
    from pyro_vae.tables import Table

ENCODED_AT_ONCE = 1000
CHECKED = 3  # datapoints at whose codes the page compares its decoder with PyTorch


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
        method: The projection of more than two latents to a plane: ``pca``, or ``umap`` with the extra ``[umap]``.
        points: The largest number of datapoints on the page. They are drawn at random, without replacement, with
            torch's generators.
        rows: The number of each datapoint on the page, such as its row in a file. By default 0, 1, 2, ...
        lowest: The number of datapoints with the lowest log p(x) to show. 0: log p(x) is not computed.
        log_prob: The result of ``evidence.estimate`` for x. By default, log p(x) is estimated for the datapoints where
            a bound from importance sampling is lowest.
        title: The title of the page.
        subtitle: A line below it, such as the name of the data.
        progress: Whether to show a progress bar while log p(x) is computed; or a function that wraps an iterable.

    Returns:
        The path of the file.

    Raises:
        TypeError: If the VAE is of another class, or x is not a tensor or has the wrong dtype.
        ValueError: If an argument is invalid, x does not fit the VAE, its latents are not real vectors, or its decoder
            has an operator that the page does not support.
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
    view = view_of(shown.cpu(), table, names, _kinds(vae.likelihood))
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
        "latent": latent_section(vae, z),
        "map": map_section(mapped, arrays),
        "labels": None if index is None else all_labels,
        "conditions": None if y is None else condition_section(y, names_of_labels),
        "lowest": None if found is None else {"points": found.lowest, "how": found.how},
        "program": program_section(program, arrays),
        "check": check_section(vae, z[:CHECKED], None if y is None else y[:CHECKED], arrays),
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
    add_datapoints(as_shown(shown.cpu(), view), view, arrays)
    content["arrays"] = arrays.places
    replace(path, page(title, content, arrays.text()).encode("utf-8", "replace"))
    return path


def _kinds(likelihood: Any) -> Sequence[Kind] | None:
    """The kinds of the columns, if this is a likelihood of tables, of incomplete ones too."""
    while isinstance(likelihood, Incomplete):
        likelihood = likelihood.likelihood
    return list(likelihood.kinds) if isinstance(likelihood, Columns) else None  # type: ignore[arg-type]  # all are kinds


@torch.no_grad()
def _codes(vae: Any, x: Tensor, y: Tensor | None) -> Tensor:
    """The codes of x, ``[n, latent]``, on the CPU."""
    with trial({"vae": vae}):
        parts = zip(x.split(ENCODED_AT_ONCE), [None] * len(x) if y is None else y.split(ENCODED_AT_ONCE), strict=False)
        return torch.cat([vae.codes(*(each for each in part if each is not None))["z"].cpu() for part in parts])
