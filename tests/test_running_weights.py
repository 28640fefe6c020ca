"""The running sums equal what the whole sample gives, however it is cut."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from pyro_vae.evidence.results.pareto import tail_length
from pyro_vae.evidence.results.running_weights import RunningWeights


@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    offset=st.sampled_from([-1e4, 0.0, 1e4]),
)
def test_they_equal_the_whole_sample(seed, sizes, offset):
    total = sum(sizes)
    generator = torch.Generator().manual_seed(seed)
    log_w = offset + 3 * torch.randn(total, 4, dtype=torch.float64, generator=generator)
    running = RunningWeights(4, total)
    for part in log_w.split(sizes):
        running.update(part)
    weights = (log_w - offset).exp()
    mean = weights.mean(0)
    assert running.count == total
    assert_close(running.log_mean, mean.log() + offset)
    assert_close(running.mean_log, log_w.mean(0))
    assert_close(running.ess, weights.sum(0).square() / weights.square().sum(0))
    if total > 1:
        assert_close(running.std_error, weights.std(0) / mean / math.sqrt(total), rtol=1e-5, atol=1e-7)
    moments = running.moments()
    for power, log_mean in zip((0.25, 0.5, 0.75, 1, 2), moments.log_means, strict=True):
        assert_close(log_mean, (power * (log_w - offset)).exp().mean(0).log() + power * offset)
    assert_close(moments.largest, weights.max(0).values / weights.sum(0))
    assert_close(running.tail, log_w.sort(0, descending=True).values[: tail_length(total) + 1])


def test_they_remember_the_square_root_of_the_sample():
    running = RunningWeights(2, 40_000)
    for _ in range(40):
        running.update(torch.randn(1000, 2))
    kept = sum(value.numel() for value in vars(running).values() if isinstance(value, torch.Tensor))
    assert kept <= 2 * (3 * 200 + 1 + 8)  # the tail with its threshold, and eight sums


def test_weights_of_zero_count():
    running = RunningWeights(1, 4)
    running.update(torch.tensor([[0.0], [-torch.inf], [0.0], [-torch.inf]]))
    assert running.log_mean.item() == pytest.approx(math.log(0.5))
    assert running.ess.item() == pytest.approx(2.0)
    assert running.std_error.item() == pytest.approx(math.sqrt(1 / 3))
    moments = running.moments()
    assert moments.zeros.item() == 0.5
    assert all(value.isfinite() for value in (*moments.log_means, moments.largest, moments.slope))


def running_of(log_weights):
    running = RunningWeights(log_weights.shape[1], 60)
    running.update(log_weights)
    return running


def test_an_error_knows_what_a_pilot_has_seen():
    good, bad = running_of(0.1 * torch.randn(60, 2)), running_of(9 * torch.randn(60, 2))
    assert good.columns()["error"].isfinite().all()
    assert good.columns(pilot=bad.moments())["error"].isinf().all()


def test_a_tail_with_weights_of_zero_has_a_finite_slope():
    running = RunningWeights(1, 10)
    running.update(torch.full((10, 1), -torch.inf).index_fill(0, torch.tensor([3]), 2.0))
    assert running.tail.isneginf().any()
    assert running.moments().slope.isfinite().all()


def test_what_is_remembered_of_a_sample_is_not_taken_for_another_one():
    """Moments are computed once: those of some rows, of replaced rows and of more samples are others."""
    log_w, other = 3 * torch.randn(30, 5, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    index = torch.tensor([4, 1])
    changed = log_w.index_copy(1, index, other)
    whole = running_of(log_w)
    whole.moments()
    more = running_of(log_w)
    more.moments()
    more.update(changed)
    for found, sample in (
        (whole.rows(index), log_w[:, index]),
        (whole.updated(index, running_of(other)), changed),
        (more, torch.cat([log_w, changed])),
    ):
        fresh = running_of(sample)
        assert found.count == fresh.count
        assert_close(found.log_mean, fresh.log_mean)
        assert_close(tuple(found.moments()), tuple(fresh.moments()))
