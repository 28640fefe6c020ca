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


def _is_what_is_given_by(psislw, log_weights):
    """k-hat, and the smoothed weights up to their sum, of the whole sample."""
    whole, k = psislw(log_weights.T.numpy().copy())
    found, smoothed = pareto.pareto_smooth(_tail(log_weights))
    assert_close(found.numpy(), np.asarray(k))
    assert found.isfinite().all()
    whole = torch.as_tensor(np.array(whole)).T.sort(0, descending=True).values
    below = log_weights.sort(0, descending=True).values[len(smoothed) :].logsumexp(0)
    assert_close(smoothed - torch.logaddexp(smoothed.logsumexp(0), below), whole[: len(smoothed)])


@pytest.mark.skipif(int(arviz.__version__.split(".")[0]) >= 1, reason="arviz 1.x has no psislw of its own")
@pytest.mark.parametrize(
    "log_weights",
    # Of 2500 rounded weights, several equal the threshold.
    [LOG_WEIGHTS, 300 * LOG_WEIGHTS, (4 * LOG_WEIGHTS).round()],
    ids=["weights", "most are zero in float64", "many are equal"],
)
def test_the_tail_alone_gives_what_arviz_gives_for_the_whole_sample(log_weights):
    _is_what_is_given_by(arviz.psislw, log_weights)


def test_the_tail_alone_gives_what_arviz_stats_gives_for_the_whole_sample():
    """Which takes minus the log-weights (a log-likelihood, for leave-one-out), and counts equal weights otherwise."""
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    _is_what_is_given_by(lambda log_weights: array_stats.psislw(-log_weights), LOG_WEIGHTS)


def test_datapoints_do_not_depend_on_each_other():
    """Neither on how many there are, nor on others with ties or without a fit."""
    log_weights = torch.cat([LOG_WEIGHTS, (4 * LOG_WEIGHTS).round(), torch.zeros(2500, 1), LOG_WEIGHTS.exp()], 1)
    found = pareto.pareto_smooth(_tail(log_weights).repeat(1, 30))
    for i, column in enumerate(_tail(log_weights).T):
        k, smoothed = pareto.pareto_smooth(column.unsqueeze(-1))
        for j in (i, 29 * log_weights.shape[1] + i):
            assert_close(found[0][j], k[0])
            assert_close(found[1][:, j], smoothed[:, 0])


def test_weights_of_zero_stay_zero_and_the_others_are_smoothed():
    log_w = LOG_WEIGHTS.clone()
    log_w[100:] = -torch.inf
    k, smoothed = pareto.pareto_smooth(_tail(log_w))
    tail = _tail(log_w)
    assert k.isfinite().all()
    assert torch.equal(smoothed.isneginf(), tail.isneginf())
    assert not torch.equal(smoothed[:100], tail[:100])
    # Not far from the 100 weights: with the threshold at 0 they are fitted as a whole.
    assert_close(smoothed[:100].logsumexp(0), tail[:100].logsumexp(0), rtol=0, atol=1.0)


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
