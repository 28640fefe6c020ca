"""Pareto k-hat: what ArviZ computes on the whole sample, and what theory says it should be."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from pyro_vae.evidence.results import pareto

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    arviz = pytest.importorskip("arviz")


def _tail(log_w):
    return log_w.sort(0, descending=True).values[: pareto.tail_length(len(log_w)) + 1]


# A perfect square, since the two ArviZ differ in how they round the length of the tail.
LOG_WEIGHTS = 2 * torch.randn(2500, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.skipif(int(arviz.__version__.split(".")[0]) >= 1, reason="arviz 1.x has no psislw of its own")
def test_the_tail_alone_gives_what_arviz_gives_for_the_whole_sample():
    expected = arviz.psislw(LOG_WEIGHTS.T.numpy())[1]
    assert_close(pareto.pareto_smooth(_tail(LOG_WEIGHTS))[0].numpy(), np.asarray(expected))


def test_the_tail_alone_gives_what_arviz_stats_gives_for_the_whole_sample(monkeypatch):
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    psislw, sizes = array_stats.psislw, []
    expected = psislw(-LOG_WEIGHTS.T.numpy())[1]
    monkeypatch.setattr(array_stats, "psislw", lambda *args: sizes.append(args[0].shape) or psislw(*args))
    monkeypatch.setattr(pareto, "_arviz_psislw", lambda: pareto._arviz_stats_psislw)
    assert_close(pareto.pareto_smooth(_tail(LOG_WEIGHTS))[0].numpy(), np.asarray(expected))
    assert sizes == [(6, 5 * 150)]  # of 2500 weights, the tail has 150


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_weights_with_a_pareto_tail_have_that_k(shape):
    # (1 - u)^-k is Pareto with tail index 1 / k. With 20000 samples the tail has 425, of which the fit has a standard
    # error of (1 + k) / sqrt(425) < 0.1 (Vehtari et al. 2024); the bound is at five of them.
    log_w = -shape * torch.rand(20_000, 8, dtype=torch.float64).log()
    k = pareto.pareto_smooth(_tail(log_w))[0]
    assert ((k - shape).abs() < 5 * (1 + shape) / 425**0.5).all()


def test_equal_weights_have_k_zero():
    log_w = torch.full((1000, 3), -90.0)
    log_w[:, 1] += 1e-5 * torch.rand(1000)  # rounding
    log_w[:, 2] += torch.rand(1000)
    k = pareto.pareto_smooth(_tail(log_w))[0]
    assert k[0] == k[1] == 0
    assert k[2] != 0
    assert k[2] < 0.5


def test_smoothing_leaves_the_threshold_and_exceeds_no_weight_that_was_seen():
    for offset in (-1e4, 0.0, 1e4):
        tail = _tail(LOG_WEIGHTS) + offset
        smoothed = pareto.pareto_smooth(tail)[1]
        assert_close(smoothed[-1], tail[-1])
        assert (smoothed <= tail[0] + 1e-6).all()
        assert ((smoothed - tail).abs() < 3).all()  # and replaces each by something like it


def test_too_few_to_tell():
    assert pareto.pareto_smooth(_tail(torch.randn(20, 1)))[0].item() == torch.inf
    assert pareto.pareto_smooth(_tail(torch.randn(30, 1)))[0].isfinite().item()
    tied = torch.zeros(1000, 1)
    tied[:3] = torch.tensor([[1.0], [2.0], [3.0]])
    assert pareto.pareto_smooth(_tail(tied))[0].item() == torch.inf
