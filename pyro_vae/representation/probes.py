"""How much codes say of labels, to a simple classifier that is trained on them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pyro_vae.checks import check_count
from pyro_vae.representation.estimate import Estimate, estimate_share
from pyro_vae.representation.features import as_features

__all__ = ["linear_probe", "nearest_neighbours"]


def linear_probe(codes_train: Tensor, labels_train: Tensor, codes_test: Tensor, labels_test: Tensor) -> Estimate:
    """The accuracy of a logistic regression from codes to labels (Alain & Bengio 2016), with scikit-learn.

    Codes are standardized by the mean and standard deviation of the training codes; the penalty on the weights is
    scikit-learn's default. A label that is not among the training labels counts as wrong. Deterministic.

    Args:
        codes_train: Codes to learn from, ``[n, latent]``: ``vae.encode(x)``, for one.
        labels_train: Their labels, integers ``[n]``.
        codes_test: Codes to classify, ``[m, latent]``.
        labels_test: Their labels, integers ``[m]``.

    Returns:
        The share of test codes that are classified correctly, and its standard error: of a single one it is infinite,
        and where all or none are correct it is 1 / m, as if one were not. (With 95% confidence the share of all data is
        then within 3 / m of that.)

    Raises:
        ImportError: If scikit-learn is absent; the extra ``[representation]`` has it.
        TypeError: If codes are not floating-point tensors, or labels not integer tensors.
        ValueError: If shapes do not match, codes are not finite, or all training labels are the same.
    """
    linear_model, pipeline, preprocessing = (
        _scikit_learn(name) for name in ("linear_model", "pipeline", "preprocessing")
    )
    regression = linear_model.LogisticRegression(max_iter=1000)
    classifier = pipeline.make_pipeline(preprocessing.StandardScaler(), regression)
    return _accuracy(classifier, codes_train, labels_train, codes_test, labels_test)


def nearest_neighbours(
    codes_train: Tensor, labels_train: Tensor, codes_test: Tensor, labels_test: Tensor, *, k: int = 5
) -> Estimate:
    """The accuracy of a vote of the k nearest training codes, in Euclidean distance, with scikit-learn.

    Codes are not standardized: latents that a VAE does not use have codes near 0, and do not count. Of labels with as
    many votes the least wins. Otherwise as :func:`linear_probe`.

    Args:
        codes_train: Codes to learn from, ``[n, latent]``, at least k of them.
        labels_train: Their labels, integers ``[n]``.
        codes_test: Codes to classify, ``[m, latent]``.
        labels_test: Their labels, integers ``[m]``.
        k: How many neighbours vote.

    Raises:
        ImportError: If scikit-learn is absent; the extra ``[representation]`` has it.
        TypeError: If codes are not floating-point tensors, or labels not integer tensors.
        ValueError: If shapes do not match, codes are not finite, all training labels are the same, or there are
            fewer than k training codes.
    """
    as_features(check_count("k", k), codes_train=codes_train)
    classifier = _scikit_learn("neighbors").KNeighborsClassifier(k)
    return _accuracy(classifier, codes_train, labels_train, codes_test, labels_test)


def _scikit_learn(name: str) -> ModuleType:
    try:
        return import_module(f"sklearn.{name}")
    except ImportError as error:
        raise ImportError("probes need scikit-learn: pip install 'pyro-vae[representation]'") from error


def _accuracy(
    classifier: Any, codes_train: Tensor, labels_train: Tensor, codes_test: Tensor, labels_test: Tensor
) -> Estimate:
    codes = as_features(codes_train=codes_train, codes_test=codes_test)
    labels = [
        _as_labels("labels_train", labels_train, "codes_train", codes_train),
        _as_labels("labels_test", labels_test, "codes_test", codes_test),
    ]
    if len(labels[0].unique()) == 1:
        raise ValueError(f"labels_train are all {labels[0][0].item()}; expected at least two classes")
    classifier.fit(codes[0].cpu().numpy(), labels[0].numpy())
    predicted = torch.from_numpy(classifier.predict(codes[1].cpu().numpy()))
    return estimate_share(predicted == labels[1])


def _as_labels(name: str, labels: Tensor, codes_name: str, codes: Tensor) -> Tensor:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        kind = f"dtype {labels.dtype}" if isinstance(labels, Tensor) else f"type {type(labels).__name__}"
        raise TypeError(f"{name} is of {kind}; expected a tensor of integers [{len(codes)}]")
    if labels.shape != codes.shape[:1]:
        raise ValueError(
            f"{name} has shape {list(labels.shape)}; expected [{len(codes)}], one for each of {codes_name}"
        )
    return labels.cpu()
