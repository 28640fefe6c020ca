"""Checks of arguments: what they accept, what they return, and that the message has the name."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import EVENT, small_vae

from pyro_vae import fit
from pyro_vae.checks import check_choice, check_count, check_images, check_positive
from pyro_vae.infer.losses import BetaELBO
from pyro_vae.likelihoods import Normal, PositiveParameter


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.float64(2), np.int64(2), Fraction(2)])
def test_positive_numbers_of_all_kinds_become_floats(value):
    assert type(check_positive("size", value)) is float
    assert check_positive("size", value) == 2.0


@pytest.mark.parametrize("value", [True, np.True_, 0, -1.0, float("nan"), float("inf"), "2", None, torch.tensor(2.0)])
def test_other_values_are_not_positive_numbers(value):
    with pytest.raises(ValueError, match=r"size is .*; expected a positive number"):
        check_positive("size", value)


@pytest.mark.parametrize("value", [True, np.True_, -1.0])
def test_parts_and_losses_have_the_same_check(value):
    for make in (
        lambda: BetaELBO(value),
        lambda: Normal(torch.nn.Identity(), value),
        lambda: PositiveParameter(1, value),
    ):
        with pytest.raises(ValueError, match="expected a positive number"):
            make()


def test_numbers_of_numpy_can_be_settings_of_a_run(tmp_path):
    """They are saved as JSON, which has no types for them."""
    x = torch.zeros(4, *EVENT)
    options = {"lr": np.float32(0.5), "clip_norm": np.float32(2), "epochs": 1, "compile": False, "progress": False}
    fit(small_vae(), x, out=tmp_path, **options)
    settings = json.loads((tmp_path / "run.json").read_text())["settings"]
    assert (settings["lr"], settings["clip_norm"]) == (0.5, 2.0)


@pytest.mark.parametrize("value", [True, 2.0, "2", 0, None])
def test_other_values_are_not_counts(value):
    with pytest.raises(ValueError, match=r"size is .*; expected an integer of at least 1"):
        check_count("size", value)


def test_choices_are_named():
    assert check_choice("word", "graph", (True, False, "graph")) == "graph"
    with pytest.raises(ValueError, match="word is 'grahp'; expected one of True, False, 'graph'"):
        check_choice("word", "grahp", (True, False, "graph"))


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (1, 3, 2, 5)])
def test_images_are_those_that_can_be_drawn(shape):
    images = torch.zeros(shape)
    assert check_images(images) is images


@pytest.mark.parametrize("shape", [(), (4,), (2, 4, 4), (0, 1, 4, 4), (2, 2, 4, 4), (2, 1, 0, 4), (2, 1, 4, 4, 1)])
def test_others_are_not(shape):
    with pytest.raises(ValueError, match=r"pictures have shape \[.*\]; expected \[n, 1 or 3, height, width\]"):
        check_images(torch.zeros(shape), "pictures")
    with pytest.raises(TypeError, match="pictures are of type ndarray"):
        check_images(np.zeros(shape), "pictures")
