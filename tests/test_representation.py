"""Numbers on codes, reconstructions and samples: exact answers, invariances, and what is known of chance."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import pytest
import scipy.linalg
import torch
from torch import Tensor
from torch.testing import assert_close

from pyro_vae.representation import (
    fidelity_and_diversity,
    frechet_distance,
    linear_probe,
    nearest_neighbours,
    reconstruction_error,
)

DOCS = Path(__file__).resolve().parents[1] / "docs" / "representation.md"
MAX_STANDARD_ERRORS = 4.5  # of a normal: a false alarm in 150000 comparisons


def clouds(n: int, classes: int = 3, apart: float = 3.0) -> tuple[Tensor, Tensor]:
    """Codes ``[n, 2]`` around a centre for each class."""
    labels = torch.arange(n) % classes
    angle = 2 * math.pi * labels / classes
    return torch.randn(n, 2) + apart * torch.stack([angle.cos(), angle.sin()], dim=1), labels


def rotation(size: int) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q


# Probes


@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
def test_separable_codes_are_all_right_and_random_labels_are_chance(probe):
    codes, labels = clouds(300, apart=30)
    assert probe(codes[:200], labels[:200], codes[200:], labels[200:]) == (1.0, 1 / 100)
    # Whatever is predicted, labels that know nothing of it agree with it as coins do.
    random = torch.randint(4, (300 + 2000,))
    codes = torch.randn(len(random), 3)
    accuracy = probe(codes[:300], random[:300], codes[300:], random[300:]).value
    assert abs(accuracy - 1 / 4) < MAX_STANDARD_ERRORS * (1 / 4 * 3 / 4 / 2000) ** 0.5


@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
def test_the_error_is_that_of_a_binomial(probe):
    codes, labels = clouds(300, apart=1)
    value, std_error = probe(codes[:200], labels[:200], codes[200:], labels[200:])
    assert 1 / 3 < value < 1
    assert_close(std_error, (value * (1 - value) / 99) ** 0.5)
    assert probe(codes[:200], labels[:200], codes[200:201], labels[200:201]).std_error == math.inf


@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_few_test_codes_that_are_all_right_are_no_certainty(probe, count):
    """Three standard errors reach as far as the 95% bound on a share of which no exception was seen: 3 / count."""
    codes, labels = clouds(40, apart=30)
    for flip, share in ((0, 1.0), (1, 0.0)):
        test_labels = (labels[30 : 30 + count] + flip) % 3
        result = probe(codes[:30], labels[:30], codes[30 : 30 + count], test_labels)
        assert result.value == share
        assert result.std_error == (math.inf if count == 1 else 1 / count)


@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
def test_dtypes_and_repetition_make_no_difference(probe):
    codes, labels = clouds(300, apart=1)
    result = probe(codes[:200], labels[:200], codes[200:], labels[200:])
    assert probe(codes[:200], labels[:200], codes[200:], labels[200:]) == result
    doubled, small = codes.double(), labels.to(torch.uint8)
    assert probe(doubled[:200], small[:200], doubled[200:].requires_grad_(), small[200:]) == result


def test_a_linear_probe_does_not_see_units_and_finds_no_circle():
    codes, labels = clouds(400, apart=1.5)
    result = linear_probe(codes[:300], labels[:300], codes[300:], labels[300:])
    moved = codes.double() * torch.tensor([1e-6, 1e3]) + torch.tensor([1e-5, 7.0])
    assert linear_probe(moved[:300], labels[:300], moved[300:], labels[300:]) == result
    angle = torch.rand(2300) * 2 * math.pi
    inner = torch.arange(2300) % 2
    rings = (1 + 2 * inner)[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    arguments = rings[:300], inner[:300], rings[300:], inner[300:]
    assert linear_probe(*arguments).value < 0.7
    assert nearest_neighbours(*arguments).value == 1


@pytest.mark.parametrize("k", [1, 4, 7])
def test_neighbours_are_those_of_brute_force(k):
    codes, labels = clouds(150, apart=1)
    train, train_labels, test, test_labels = codes[:100], labels[:100], codes[100:], labels[100:]
    correct = 0
    for code, label in zip(test, test_labels, strict=True):
        nearest = (train.double() - code.double()).square().sum(1).argsort()[:k]
        votes = train_labels[nearest].bincount(minlength=3).tolist()
        correct += votes.index(max(votes)) == label
    assert_close(nearest_neighbours(train, train_labels, test, test_labels, k=k).value, int(correct) / 50)
    turn = rotation(2)
    turned = nearest_neighbours(train.double() @ turn, train_labels, test.double() @ turn, test_labels, k=k)
    assert_close(turned.value, int(correct) / 50)


def test_a_label_that_was_never_seen_counts_as_wrong():
    codes, labels = clouds(300, apart=30)
    seen = labels < 2
    for probe in (linear_probe, nearest_neighbours):
        assert_close(probe(codes[seen], labels[seen], codes, labels).value, 2 / 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"codes_train": torch.randn(6, 2, 1)}, ValueError, r"codes_train has shape \[6, 2, 1\]; expected \[n, features"),
        ({"codes_train": torch.ones(6, 2).int()}, TypeError, "codes_train is of dtype torch.int32"),
        ({"codes_train": [1.0]}, TypeError, "codes_train is of type list"),
        ({"codes_train": torch.full((6, 2), torch.nan)}, ValueError, "codes_train has 12 values that are NaN"),
        ({"codes_test": torch.full((4, 2), torch.inf)}, ValueError, "codes_test has 8 values that are NaN or infinite"),
        ({"codes_test": torch.randn(0, 2)}, ValueError, r"codes_test has shape \[0, 2\]"),
        ({"codes_test": torch.randn(4, 3)}, ValueError, "codes_test has 3 features; expected 2, as codes_train"),
        ({"labels_train": torch.ones(6)}, TypeError, "labels_train is of dtype torch.float32; expected a tensor of int"),
        ({"labels_test": [0, 1, 0, 1]}, TypeError, "labels_test is of type list"),
        ({"labels_test": torch.zeros(5).int()}, ValueError, r"labels_test has shape \[5\]; expected \[4\]"),
        ({"labels_train": torch.ones(6).int()}, ValueError, "labels_train are all 1; expected at least two classes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("probe", [linear_probe, nearest_neighbours])
def test_what_cannot_be_probed(probe, change, error, message):
    arguments = {
        "codes_train": torch.randn(6, 2),
        "labels_train": torch.arange(6) % 2,
        "codes_test": torch.randn(4, 2),
        "labels_test": torch.arange(4) % 2,
    }
    with pytest.raises(error, match=message):
        probe(**arguments | change)


@pytest.mark.parametrize(("k", "message"), [(7, "with n at least 7"), (0, "k is 0"), (1.5, "k is 1.5")])
def test_as_many_neighbours_as_there_are(k, message):
    codes, labels = clouds(6)
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(codes, labels, codes, labels, k=k)


def test_without_scikit_learn_one_sentence_says_what_to_install(monkeypatch):
    for name in ("sklearn", "sklearn.linear_model", "sklearn.neighbors"):
        monkeypatch.setitem(sys.modules, name, None)
    codes, labels = clouds(9)
    for probe in (linear_probe, nearest_neighbours):
        with pytest.raises(ImportError, match=r"pip install 'pyro-vae\[representation\]'"):
            probe(codes, labels, codes, labels)


# Reconstructions


def test_reconstruction_error_is_a_mean_over_pixels_with_its_error_over_datapoints():
    x = torch.rand(50, 1, 4, 3)
    assert reconstruction_error(x, x) == (0, 0)
    assert_close(reconstruction_error(x, x + 0.5).value, 0.25, rtol=1e-6, atol=0)
    errors = torch.arange(50.0) / 50
    value, std_error = reconstruction_error(x.double(), x.double() + errors.double().sqrt()[:, None, None, None])
    assert_close(value, errors.mean().item())
    assert_close(std_error, errors.std().item() / 50**0.5)


def test_the_vae_of_the_tests(vae, x):
    assert_close(reconstruction_error(x, vae.reconstruct(x)).value, (x - vae.reconstruct(x)).square().mean().item())


@pytest.mark.parametrize(
    ("x", "reconstructed", "error", "message"),
    [
        (torch.ones(3, 2), torch.ones(2, 3), ValueError, r"reconstructed has shape \[2, 3\]; expected that of x, \[3, 2\]"),
        (torch.ones(3, 2), torch.full((3, 2), torch.nan), ValueError, "3 datapoints have a squared error that is NaN"),
        (torch.ones(0, 2), torch.ones(0, 2), ValueError, "at least one datapoint"),
        ([1.0], torch.ones(1), TypeError, "x is of type list"),
        (torch.ones(1), [1.0], TypeError, "reconstructed is of type list"),
    ],
)  # fmt: skip
def test_what_are_no_reconstructions(x, reconstructed, error, message):
    with pytest.raises(error, match=message):
        reconstruction_error(x, reconstructed)


# Fréchet distance


def with_moments(n: int, mean: Tensor, covariance: Tensor) -> Tensor:
    """Numbers ``[n, features]`` that have exactly this mean and this covariance."""
    x = torch.randn(n, len(mean), dtype=torch.float64)
    x = x - x.mean(0)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T
    return whitened @ torch.linalg.cholesky(covariance).T + mean


def random_covariance(size: int) -> Tensor:
    factor = torch.randn(size, size, dtype=torch.float64)
    return factor @ factor.T + 0.1 * torch.eye(size)


def test_frechet_distance_of_known_normals():
    """Where covariances commute it is the distance of means and of standard deviations (Dowson & Landau 1982)."""
    means, scales = torch.randn(2, 4, dtype=torch.float64), torch.rand(2, 4, dtype=torch.float64) + 0.1
    turn = rotation(4)
    a, b = (
        with_moments(50, mean, turn @ scale.square().diag() @ turn.T) for mean, scale in zip(means, scales, strict=True)
    )
    expected = (means[0] - means[1]).square().sum() + (scales[0] - scales[1]).square().sum()
    assert_close(frechet_distance(a, b), expected.item())


def test_frechet_distance_with_the_square_root_of_a_matrix():
    mean = torch.randn(2, 5, dtype=torch.float64)
    covariance = [random_covariance(5) for _ in mean]
    a, b = with_moments(40, mean[0], covariance[0]), with_moments(70, mean[1], covariance[1])
    root = torch.as_tensor(scipy.linalg.sqrtm((covariance[0] @ covariance[1]).numpy()).real)
    expected = (mean[0] - mean[1]).square().sum() + (covariance[0] + covariance[1] - 2 * root).trace()
    assert_close(frechet_distance(a, b), expected.item())
    assert_close(frechet_distance(b, a), expected.item())
    assert_close(frechet_distance(a.float(), b.float()), expected.item(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("features", [3, 60])  # with 60, covariances of 40 points are singular
def test_frechet_distance_is_invariant_and_zero_for_equal_sets(features):
    a, b = torch.randn(40, features, dtype=torch.float64), 2 * torch.randn(40, features, dtype=torch.float64) + 1
    turn, shift = rotation(features), torch.randn(features, dtype=torch.float64)
    distance = frechet_distance(a, b)
    assert_close(frechet_distance(a @ turn + shift, b @ turn + shift), distance)
    assert_close(frechet_distance(3 * a, 3 * b), 9 * distance)
    assert_close(frechet_distance(a, a + shift), shift.square().sum().item())
    assert 0 <= frechet_distance(a, a.flip(0)) < 1e-10


# Fidelity and diversity


def by_the_definitions(data: Tensor, samples: Tensor, k: int) -> list[float]:
    """Kynkäänniemi et al. 2019, equations 1 and 2; Naeem et al. 2020, section 3.2; one pair at a time."""

    def inside(point: Tensor, centre: int, points: Tensor) -> bool:
        others = [math.dist(points[centre], other) for i, other in enumerate(points) if i != centre]
        return math.dist(point, points[centre]) <= sorted(others)[k - 1]

    n, m = len(data), len(samples)
    sample_in_ball = [[inside(samples[j], i, data) for i in range(n)] for j in range(m)]
    data_in_ball = [[inside(data[i], j, samples) for j in range(m)] for i in range(n)]
    return [
        sum(map(any, sample_in_ball)) / m,
        sum(map(any, data_in_ball)) / n,
        sum(map(sum, sample_in_ball)) / (k * m),
        sum(map(any, zip(*sample_in_ball, strict=True))) / n,
    ]


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("pairs", [1, 50, 2**22])
def test_fidelity_and_diversity_by_the_definitions(k, pairs, monkeypatch):
    monkeypatch.setattr(sys.modules["pyro_vae.representation.fidelity"], "PAIRS", pairs)
    data, samples = torch.randn(20, 2), 0.7 * torch.randn(15, 2) + 1
    result = fidelity_and_diversity(data, samples, k=k)
    assert_close(list(result), by_the_definitions(data.double(), samples.double(), k))
    assert 0 < min(result) < max(result) < 1.5
    grid = torch.randint(3, (20, 4)).float(), torch.randint(3, (15, 4)).float()  # many distances are the same
    assert_close(list(fidelity_and_diversity(*grid, k=k)), by_the_definitions(*(x.double() for x in grid), k))


def test_fidelity_and_diversity_of_equal_disjoint_and_collapsed_sets():
    data = torch.randn(40, 3)
    same = fidelity_and_diversity(data, data.flip(0))
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert fidelity_and_diversity(data, data + 100) == (0, 0, 0, 0)
    one_place = fidelity_and_diversity(data, data[:1] + 1e-3 * torch.randn(40, 3))
    assert one_place.precision == 1
    assert one_place.recall <= 1 / 40
    assert one_place.coverage < 0.7


def test_precision_of_one_order_is_recall_of_the_other():
    data, samples = torch.randn(30, 3), 0.8 * torch.randn(25, 3)
    one, other = fidelity_and_diversity(data, samples), fidelity_and_diversity(samples, data)
    assert (one.precision, one.recall) == (other.recall, other.precision)
    turn = rotation(3)
    turned = fidelity_and_diversity(5 * data.double() @ turn + 1, 5 * samples.double() @ turn + 1)
    assert_close(list(turned), list(one))


def test_samples_of_the_distribution_of_the_data():
    """E density = 1, E coverage = 1 - (n-1)...(n-k) / ((m+n-1)...(m+n-k)), for any distribution of no atoms."""
    n, m, k, repetitions = 30, 20, 3, 400
    results = torch.tensor(
        [fidelity_and_diversity(torch.randn(n, 2).exp(), torch.randn(m, 2).exp(), k=k)[2:] for _ in range(repetitions)]
    )
    expected = torch.tensor([1, 1 - math.perm(n - 1, k) / math.perm(m + n - 1, k)])
    errors = results.std(0) / repetitions**0.5
    assert ((results.mean(0) - expected).abs() < MAX_STANDARD_ERRORS * errors).all()
    assert (errors < 0.02).all()


@pytest.mark.parametrize("metric", [frechet_distance, fidelity_and_diversity])
@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (torch.ones(9, 1, 2, 2), ValueError, r"samples has shape \[9, 1, 2, 2\].*flatten\(1\)"),
        (torch.ones(1, 4), ValueError, r"samples has shape \[1, 4\]; expected \[n, features\] with n at least"),
        (torch.ones(9, 3), ValueError, "samples has 3 features; expected 4, as data"),
        (torch.full((9, 4), torch.nan), ValueError, "samples has 36 values that are NaN"),
        (torch.ones(9, 4).int(), TypeError, "samples is of dtype torch.int32"),
        (torch.ones(9, 4, device="meta"), ValueError, "samples is on device meta; expected cpu, as data"),
    ],
)
def test_what_are_no_features(metric, samples, error, message):
    with pytest.raises(error, match=message):
        metric(torch.randn(9, 4), samples)


def test_the_code_of_the_docs_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block.replace("epochs=3", "epochs=1"), DOCS.name, "exec"), names)
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert names["best"].precision > 0.5
