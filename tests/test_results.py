"""What every result shows of itself: a short repr, a table in notebooks, a summary and, for most, a picture.

A new class of results in an ``__all__`` fails here until :func:`make` makes one.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import pickle
import pkgutil
import warnings
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch
from conftest import small_vae
from matplotlib.figure import Figure
from torch import Tensor, nn

import pyro_vae
from pyro_vae import (
    VAE,
    data,
    evidence,
    exporting,
    fit,
    infer,
    likelihoods,
    posteriors,
    priors,
    representation,
    tables,
    training,
    weights,
)
from pyro_vae import nn as networks
from pyro_vae.html_table import html_table

LONGEST_REPR = 300
NO_RESULTS = {
    *(weights.Layout, exporting.Program),  # no numbers to look at
    *(evidence.Method, training.RunProgress),  # rows of the results that have them
}
NO_PICTURE = {"ElboEstimate", "FidelityAndDiversity", "FilledTable", "Score", "Table", "Terms"}  # a few numbers each
WITH_MODEL = {"Run"}  # which is there to hold one
NEVER_EMPTY = {"Evidence", "FilledTable", "Imputation"}  # their functions refuse data without rows
QUIET = {"progress": False}


def is_named_tuple(kind):
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def public_results():
    """The dataclasses, named tuples and classes with a summary in the ``__all__`` of a package or of ``weights``."""
    packages = [m.name for m in pkgutil.walk_packages(pyro_vae.__path__, "pyro_vae.") if m.ispkg]
    modules = [pyro_vae, weights, *map(importlib.import_module, packages)]
    public = [getattr(module, name) for module in modules for name in getattr(module, "__all__", ())]
    kinds = {each for each in public if isinstance(each, type) and not issubclass(each, nn.Module)} - NO_RESULTS
    return {
        kind for kind in kinds if dataclasses.is_dataclass(kind) or is_named_tuple(kind) or hasattr(kind, "summary")
    }


def make():
    """A result of each class, by the function of the package that returns it."""
    torch.manual_seed(0)
    vae, x = small_vae(), torch.rand(12, 1, 4, 4).bernoulli()
    programs, many = (vae.model, vae.guide), x.repeat(5, 1, 1, 1)
    codes, labels = torch.randn(40, 2), torch.arange(40) % 2
    frame = pd.DataFrame({"a": [1.5, None, 3.0, 0.2], "b": ["x", "y", None, "x"]})
    table = tables.Table.of(frame)
    of_table = VAE(
        priors.StandardNormal(2),
        likelihoods.Incomplete(table.likelihood(networks.mlp(2, [], table.num_parameters))),
        posteriors.Normal(table.encoder(networks.mlp(table.num_features, [], 4))),
    )
    images = torch.randint(256, (60, 1, 6, 6), dtype=torch.uint8)
    path = {"num_chains": 4, "num_temperatures": 3, "num_leapfrog": 2}
    first, second = (evidence.importance(*programs, x, num_samples=400, **QUIET) for _ in range(2))
    check = evidence.check_elbo(*programs, x, num_particles=20, **QUIET)
    results = [
        first,
        evidence.compare(first, second),
        evidence.estimate(*programs, x, certify=6, tolerance=0.3, compile=False, **QUIET).certificate,
        evidence.sandwich(*programs, x, **path, **QUIET),
        evidence.impute(*programs, x, num_samples=4, **QUIET),
        evidence.calibrate(*programs, many, num_draws=9, **QUIET),
        check,
        check.trace,
        evidence.decompose_elbo(*programs, many, num_particles=4, **QUIET),
        evidence.inference_gap(*programs, x, log_prob=first, num_steps=20, max_rounds=2, num_samples=50, **QUIET),
        evidence.compare_with_nuts(*programs, x[:2], num_samples=10, warmup_steps=10, **QUIET),
        infer.gradient_variance(*programs, x, {"elbo": infer.losses.ELBO()}, num_draws=5)["elbo"],
        fit(small_vae(), x, x, epochs=2, batch_size=6, **QUIET),
        data.Splits.from_uint8(images, labels.repeat(2)[:60], images[:30], labels[:30], num_valid=20),
        representation.nearest_neighbours(codes, labels, codes, labels, k=3),
        representation.fidelity_and_diversity(codes, torch.randn(40, 2)),
        table,
        tables.fill_table(table, of_table.model, of_table.guide, frame, num_draws=3, num_samples=4, **QUIET),
        weights.terms(*programs, x, 4, weights.find_layout(*programs, x)),
    ]
    return {type(result).__name__: result for result in results if not isinstance(result, Tensor)}


@pytest.fixture(scope="module")
def made():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few samples
        return make()


NAMES = sorted(kind.__name__ for kind in public_results())
each = pytest.mark.parametrize("name", NAMES)


def changed(value, change):
    """The value with every float and tensor in it changed, however deep."""
    if isinstance(value, Tensor | float):
        return change(value)
    if isinstance(value, dict):
        return {name: changed(each, change) for name, each in value.items()}
    if isinstance(value, tuple | list):
        parts = [changed(each, change) for each in value]
        return type(value)(*parts) if is_named_tuple(type(value)) else type(value)(parts)
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: changed(each, change) for name, each in fields.items()})
    return value


def not_known(result):
    """The result with NaN in the place of every number."""

    def change(value):
        if isinstance(value, float):
            return float("nan")
        return torch.full_like(value, torch.nan) if value.is_floating_point() else value

    return changed(result, change)


def of_nothing(result):
    """The result of no datapoints."""

    def change(value):
        return value[:0] if isinstance(value, Tensor) else value

    if isinstance(result, evidence.NutsComparison):  # whose draws have chains first
        nuts, guide = (
            {name: draws[:, :, :0] for name, draws in sites.items()} for sites in (result.nuts, result.guide)
        )
        rest = {name: changed(getattr(result, name), change) for name in ("ess", "ess_sd", "r_hat")}
        return dataclasses.replace(result, nuts=nuts, guide=guide, **rest)
    return changed(result, change)


class Table(HTMLParser):
    """Reads a table: every tag is closed in its order; keeps the text of the cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.rows[-1][-1] += text


def test_a_result_of_each_public_class_is_made(made):
    assert set(made) == set(NAMES)


@each
def test_the_repr_is_a_short_line(made, name):
    text = repr(made[name])
    assert text.startswith(f"{name}(")
    assert len(text) < LONGEST_REPR
    assert "\n" not in text
    assert "tensor(" not in text


@each
def test_the_summary_is_what_str_shows(made, name):
    result = made[name]
    assert str(result) == result.summary()
    assert result.summary().strip()
    assert "tensor(" not in result.summary()


@each
def test_a_notebook_shows_a_table(made, name):
    text = made[name]._repr_html_()
    table = Table(text)
    assert text.startswith("<table>")
    assert len(table.rows) > 0
    assert all(len(row) == 2 and row[0].strip() for row in table.rows), table.rows
    assert "tensor(" not in text


@each
def test_a_picture_can_be_saved(made, name):
    result = made[name]
    assert hasattr(result, "plot") != (name in NO_PICTURE)
    if name in NO_PICTURE:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = result.plot()
        assert isinstance(figure, Figure)
        file = io.BytesIO()
        figure.savefig(file)
    assert file.getvalue().startswith(b"\x89PNG")
    assert figure.axes


@each
@pytest.mark.parametrize("change", [not_known, of_nothing])
def test_numbers_that_are_not_known_can_be_shown(made, name, change):
    if change is of_nothing and name in NEVER_EMPTY:
        return
    result = change(made[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(repr(result)) < LONGEST_REPR
        assert Table(result._repr_html_()).rows


@each
def test_a_pickle_has_the_numbers_and_no_model(made, name):
    if name in WITH_MODEL:
        return
    classes = []

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, attribute):
            found = super().find_class(module, attribute)
            classes.append(found)
            return found

    result = Unpickler(io.BytesIO(pickle.dumps(made[name]))).load()
    assert result.summary() == made[name].summary()
    assert not [found for found in classes if isinstance(found, type) and issubclass(found, nn.Module)]


def test_names_and_values_are_escaped():
    rows = {"<b>&": "</td>\"'", "site '<z>'": "a < b"}
    assert Table(html_table(rows)).rows == [list(row) for row in rows.items()]


def test_names_of_sites_and_parameters_are_escaped():
    """They are the user's."""
    ranks = {"</th><script>": torch.arange(100)[:, None] // 50}
    moments = infer.GradientMoments({"<net>": torch.ones(2)}, {"<net>": torch.ones(2)}, 5, 2.0, 0.1)
    for result, text in ((evidence.Calibration(ranks, 99), "</th><script>[0]"), (moments, "<net>")):
        assert text in [row[0] for row in Table(result._repr_html_()).rows]


def test_the_parts_of_many_gaps_are_drawn_and_add_up_to_the_gap():
    """Also of datapoints for which they are not known."""
    n = 300
    gap = torch.linspace(3, 0, n, dtype=torch.float64)
    error, known = torch.full((n,), 0.1, dtype=torch.float64), torch.arange(n) % 7 > 0
    result = evidence.InferenceGap(-gap, -0.4 * gap, 0 * gap, error, error, error, error / 2, known)
    levels, parts = result.plot().axes
    assert [label.get_text() for label in levels.get_xticklabels()] == ["log p(x)", "best ELBO", "ELBO"]
    top = max(area.get_paths()[0].vertices[:, 1].max() for area in parts.collections)
    assert top == pytest.approx(gap[known].max().item())
    assert "not known" in parts.get_xlabel()


def test_every_latent_coordinate_is_a_point_beside_nuts():
    """Those that agree around (0, 1), and those that differ where they belong."""
    nuts = torch.randn(2, 500, 300, dtype=torch.float64)
    guide = nuts.flip(1) * torch.where(torch.arange(300) < 100, 1.5, 1.0) + torch.where(
        torch.arange(300) < 50, 1.0, 0.0
    )
    ess = {"z": torch.full((300,), 1000.0)}
    draws = ({"z": nuts}, {"z": guide})
    result = evidence.NutsComparison(*draws, ess, ess, {"z": torch.ones(300)}, torch.zeros(2, 500, dtype=torch.bool))
    (axes,) = result.plot().axes
    agreeing, differing = (line.get_xydata() for line in axes.lines if line.get_marker() == "o")
    assert len(agreeing) == 200
    assert abs(agreeing - [0, 1]).max() < 1e-6
    assert len(differing) == 100
    assert (differing[:50, 0] > 0.8).all()
    assert abs(differing[:, 1] - 1.5).max() < 1e-6


def test_the_parts_of_the_rate_and_the_activity_of_every_unit_are_drawn(made):
    parts, units = made["ElboDecomposition"].plot().axes
    result = made["ElboDecomposition"]
    assert [bar.get_width() for bar in parts.patches] == [result.rate, result.mutual_information, result.marginal_kl]
    assert sum(len(points.get_offsets()) for points in units.collections) == result.activity["z"].numel()


def test_a_run_shows_its_losses_and_its_rate_against_its_distortion(made):
    history = made["Run"].history
    losses, terms = made["Run"].plot().axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in losses.lines}
    assert drawn == {part: [row[f"{part}_loss"] for row in history] for part in ("train", "valid")}
    assert list(terms.lines[0].get_xdata()) == [row["valid_rate"] for row in history]
    assert list(terms.lines[0].get_ydata()) == [row["valid_distortion"] for row in history]


def test_splits_show_as_many_images_of_each_part_as_all_have(made):
    splits = made["Splits"]
    few = dataclasses.replace(splits, valid=splits.valid[:3], test=splits.test[:0])
    for result, names, columns in ((splits, ["train", "valid", "test"], 10), (few, ["train", "valid"], 3)):
        (axes,) = result.plot().axes
        assert [label.get_text() for label in axes.get_yticklabels()] == names
        assert axes.images[0].get_array().shape[:2] == (len(names) * 6, columns * 6)
