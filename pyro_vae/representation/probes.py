"""How well simple classifiers predict labels from codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.representation.features import as_features
from pyro_vae.representation.score import Score, share_score
from pyro_vae.system.packages import import_extra


def linear_probe(codes_train: Tensor, labels_train: Tensor, codes_test: Tensor, labels_test: Tensor) -> Score:
    """The accuracy of a logistic regression from codes to labels (Alain & Bengio 2016), by scikit-learn.

    Codes are standardized by the mean and standard deviation of the training codes; the penalty on the weights is
    scikit-learn's default. Test labels that are not among the training labels count as errors. It is deterministic.

    Args:
        codes_train: Training codes, ``[n, latent]``, such as ``vae.encode(x)``.
        labels_train: Their labels, integers ``[n]``.
        codes_test: Test codes, ``[m, latent]``.
        labels_test: Their labels, integers ``[m]``.

    Returns:
        The accuracy on the test codes with its standard error. The error is infinite for a single test code. If all or
        none are correct it is 1 / m, as if one were different. (The accuracy on the whole population is then within
        3 / m of this with 95% confidence.)

    Raises:
        ImportError: If scikit-learn is not installed; it is in the extra ``[representation]``.
        TypeError: If codes are not floating-point tensors, or labels not integer tensors.
        ValueError: If shapes do not match, codes are not finite, or all training labels are the same.

    Example:
        >>> codes, labels = torch.randn(200, 2), torch.arange(200) % 2
        >>> codes[:, 0] += 10 * labels
        >>> representation.linear_probe(codes[:100], labels[:100], codes[100:], labels[100:])
        Score(value=1.0, std_error=0.01)
    """
    linear_model, pipeline, preprocessing = (
        _scikit_learn(name) for name in ("linear_model", "pipeline", "preprocessing")
    )
    regression = linear_model.LogisticRegression(max_iter=1000)
    classifier = pipeline.make_pipeline(preprocessing.StandardScaler(), regression)
    return _accuracy(classifier, codes_train, labels_train, codes_test, labels_test)


def nearest_neighbours(
    codes_train: Tensor, labels_train: Tensor, codes_test: Tensor, labels_test: Tensor, *, k: int = 5
) -> Score:
    """The accuracy of a majority vote of the k nearest training codes in Euclidean distance, by scikit-learn.

    Codes are not standardized, since unused latent dimensions of a VAE have codes near 0 and should not count. In a tie
    the smallest label wins. Otherwise it is like :func:`linear_probe`.

    Args:
        codes_train: Training codes, ``[n, latent]``, with n at least k.
        labels_train: Their labels, integers ``[n]``.
        codes_test: Test codes, ``[m, latent]``.
        labels_test: Their labels, integers ``[m]``.
        k: The number of neighbours that vote.

    Returns:
        The accuracy on the test codes with its standard error, as for :func:`linear_probe`.

    Raises:
        ImportError: If scikit-learn is not installed; it is in the extra ``[representation]``.
        TypeError: If codes are not floating-point tensors, or labels not integer tensors.
        ValueError: If shapes do not match, codes are not finite, all training labels are the same, or there are
            fewer than k training codes.

    Example:
        >>> codes, labels = torch.randn(200, 2), torch.arange(200) % 2
        >>> codes[:, 0] += 10 * labels
        >>> representation.nearest_neighbours(codes[:100], labels[:100], codes[100:], labels[100:], k=5)
        Score(value=1.0, std_error=0.01)
    """
    as_features(check_count("k", k), codes_train=codes_train)
    classifier = _scikit_learn("neighbors").KNeighborsClassifier(k)
    return _accuracy(classifier, codes_train, labels_train, codes_test, labels_test)


def _scikit_learn(name: str) -> Any:
    return import_extra(f"sklearn.{name}", "probes need scikit-learn", "representation")


def _accuracy(
    classifier: Any, codes_train: Tensor, labels_train: Tensor, codes_test: Tensor, labels_test: Tensor
) -> Score:
    codes = as_features(codes_train=codes_train, codes_test=codes_test)
    labels = [
        _as_labels("labels_train", labels_train, "codes_train", codes_train),
        _as_labels("labels_test", labels_test, "codes_test", codes_test),
    ]
    if len(labels[0].unique()) == 1:
        raise ValueError(f"labels_train are all {labels[0][0].item()}; expected at least two classes")
    classifier.fit(codes[0].cpu().numpy(), labels[0].numpy())
    predicted = torch.from_numpy(classifier.predict(codes[1].cpu().numpy()))
    return share_score(predicted == labels[1])


def _as_labels(name: str, labels: Tensor, codes_name: str, codes: Tensor) -> Tensor:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        kind = f"dtype {labels.dtype}" if isinstance(labels, Tensor) else f"type {type(labels).__name__}"
        raise TypeError(f"{name} is of {kind}; expected a tensor of integers [{len(codes)}]")
    if labels.shape != codes.shape[:1]:
        raise ValueError(
            f"{name} has shape {list(labels.shape)}; expected [{len(codes)}], one for each of {codes_name}"
        )
    return labels.cpu()
