"""Few labelled and many unlabelled datapoints: the M2 model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vae.checks import check_count, check_positive
from pyro_vae.distributions import as_pyro
from pyro_vae.exporting import Program
from pyro_vae.models.at_means import mean_or_draw
from pyro_vae.models.conditions import append, posterior_given
from pyro_vae.models.exported import ROWS, conditional, encoder, log_density, picked
from pyro_vae.models.latent_variable_model import LatentVariableModel
from pyro_vae.models.parts_fit import check_parts, trial
from pyro_vae.system.grad_mode import without_gradients
from pyro_vae.system.tracing import is_tracing


class SemiSupervisedVAE(LatentVariableModel):
    """p(y) p(z) p(x | y, z) and q(y | x) q(z | x, y), with or without labels y (Kingma et al. 2014, M2).

    With labels, the programs observe them at site ``"y"``. Without, y is a latent that Pyro can sum out:

        unlabelled = SVI(vae.model, vae.guide, optim, TraceEnum_ELBO(max_plate_nesting=1))
        labelled = SVI(vae.model, vae.guide, optim, Trace_ELBO())
        labels = SVI(vae.label_model, vae.label_guide, optim, Trace_ELBO())
        unlabelled.step(x); labelled.step(x, y); labels.step(x, y)

    These are equations 7, 6 and the classification loss of equation 9, where ``label_weight`` is alpha. Without labels
    both are programs of x alone, so that log p(x) is estimated as for any other model.

    Args:
        prior: ``prior()`` returns p(z), with event shape ``[latent]``.
        likelihood: Called with z and the label, one-hot, ``[*batch, latent + classes]``; returns p(x | y, z).
        posterior: Returns q(z | x, y), the label being one-hot, ``[*batch, classes]``; it is called as that of a
            :class:`~pyro_vae.ConditionalVAE`. When Pyro sums over labels, their batch is ``[classes, 1]`` and that of x
            is ``[n]``: the batches must broadcast.
        classifier: A network that maps x ``[*batch, *event]`` to logits ``[*batch, classes]``: q(y | x).
        classes: The number of classes, which have equal prior probabilities.
        label_weight: The weight of the classification loss, for each datapoint.

    Raises:
        TypeError: If a part is not a module or does not return a distribution.
        ValueError: If the parts do not fit together; they are run once, on one draw from the prior, to find out.

    Example:
        >>> vae = SemiSupervisedVAE(
        ...     priors.StandardNormal(2),
        ...     likelihoods.Bernoulli(nn.mlp(2 + 3, [8], (1, 4, 4))),
        ...     ConditionalPosterior(nn.mlp((1, 4, 4), [8], 6), posteriors.Normal(nn.mlp(6 + 3, [], 4))),
        ...     classifier=nn.mlp((1, 4, 4), [8], 3),
        ...     classes=3,
        ... )
        >>> vae.classify(x).sum(-1).allclose(torch.ones(8))
        True
    """

    classifier: nn.Module

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        posterior: nn.Module,
        classifier: nn.Module,
        classes: int,
        label_weight: float = 1.0,
    ) -> None:
        check_count("classes", classes, least=2)
        check_positive("label_weight", label_weight)
        z, x, support = check_parts(prior, likelihood, posterior, classes)
        with trial({"classifier": classifier}):
            try:
                logits = classifier(x)
            except (RuntimeError, ValueError, IndexError) as error:
                raise ValueError(f"classifier(x), for x of shape {list(x.shape)}, failed: {error}") from error
        if not isinstance(logits, Tensor) or logits.shape != (1, classes):
            shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"classifier(x), for x of shape {list(x.shape)}, gives {shape}; expected [1, {classes}]")
        super().__init__(x, support, prior=prior, likelihood=likelihood, posterior=posterior, classifier=classifier)
        self.label_weight = label_weight
        self.register_buffer("_label_logits", z.new_zeros(classes), persistent=False)  # p(y), up to a constant

    def model(self, x: Tensor, y: Tensor | None = None, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:  # noqa: ARG002
        """The program p(y) p(z) p(x | y, z), with x ``[n, *event]`` observed, and y ``[n]`` if given. Returns x."""
        with self._data_plate([self.prior, self.likelihood], x, y):
            label = pyro.sample("y", dist.Categorical(logits=self._label_logits, validate_args=False), obs=y)
            z = pyro.sample("z", as_pyro(self.prior()))
            return self._observe(x, append(z, self._one_hot(label)))

    def guide(self, x: Tensor, y: Tensor | None = None, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:
        """The program q(y | x) q(z | x, y), or q(z | x, y) if y ``[n]`` is given. Returns z.

        Observations are as in :meth:`VAE.guide <pyro_vae.VAE.guide>`; labels that are given may be among them.
        """
        with self._data_plate([self.posterior, *([self.classifier] if y is None else [])], x, y):
            x, y = self.data_of(x, observations), (observations or {}).get("y", y)
            if y is None:
                q_y = dist.Categorical(logits=self.classifier(x), validate_args=False)
                y = pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            return pyro.sample("z", as_pyro(self._posterior(x, y)))

    def label_model(self, x: Tensor, y: Tensor) -> None:
        """The program that observes y ``[n]`` under q(y | x), weighted: the classification loss."""
        with self._data_plate([self.classifier], x, y), pyro.poutine.scale(scale=self.label_weight):
            pyro.sample("y", dist.Categorical(logits=self.classifier(x), validate_args=False), obs=y)

    def label_guide(self, x: Tensor, y: Tensor) -> None:
        """The guide of :meth:`label_model`: it has no latents."""

    @without_gradients
    def classify(self, x: Tensor) -> Tensor:
        """q(y | x) for x ``[n, *event]``: probabilities ``[n, classes]``."""
        self.check(x)
        return self.classifier(x).softmax(-1)

    @torch.no_grad()
    def draw_prior(self, y: Tensor) -> tuple[dict[str, Tensor], Distribution]:
        """Draws a latent for each label y ``[n]``. Returns ``{"z": [n, latent]}`` and p(x | y, z)."""
        self._check_labels(y, y.shape[0] if isinstance(y, Tensor) and y.ndim else 0)
        z = self.prior().sample((len(y),))
        return {"z": z}, self.likelihood(append(z, self._one_hot(y)))

    @torch.no_grad()
    def sample(self, y: Tensor) -> Tensor:
        """Draws a datapoint from p(x | y) for each label y ``[n]``: ``[n, *event]``."""
        return self.draw_prior(y)[1].sample()

    @without_gradients
    def codes(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Codes of x ``[n, *event]``, ``{"z": [n, latent]}``: means of q(z | x, y), or draws if it has no mean.

        Args:
            x: The data.
            y: Their labels ``[n]``; by default the most probable ones under q(y | x).
        """
        self.check(x)
        self.check_conditions(y, x.shape[0])
        return {"z": mean_or_draw(self._posterior(x, self._most_probable(x) if y is None else y))}

    @without_gradients
    def decode(self, z: Tensor, y: Tensor) -> Tensor:
        """The mean of p(x | y, z) at latents z ``[n, latent]`` and labels y ``[n]``."""
        return self.likelihood(append(z, self._one_hot(y))).mean

    @without_gradients
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | y, z) at the :meth:`codes` of x ``[n, *event]``, with the same labels."""
        z = self.codes(x, y)["z"]
        return self.likelihood(append(z, self._one_hot(self._most_probable(x) if y is None else y))).mean

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self._label_logits)

    def check_conditions(self, y: Any, n: int) -> None:
        """Checks that y, if given, is a tensor ``[n]`` of labels.

        Raises:
            TypeError: If it is not a tensor of int64.
            ValueError: If it has another shape, or labels outside the classes.
        """
        if y is not None:
            self._check_labels(y, n)

    def _check_labels(self, y: Any, n: int) -> None:
        if not isinstance(y, Tensor) or y.dtype != torch.int64:
            kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(f"y is of type {kind}; expected a tensor of int64")
        if y.shape != (n,) or n == 0:
            raise ValueError(f"y has shape {list(y.shape)}; expected [{n or 'n'}], a label for each datapoint")
        if not is_tracing() and (y.min() < 0 or y.max() >= self.classes):
            raise ValueError(f"y has labels from {y.min()} to {y.max()}; expected 0 to {self.classes - 1}")

    def _export_programs(self) -> list[Program]:
        labels = [torch.arange(n) % self.classes for n in ROWS]
        drawn = self._examples(*labels)
        examples = ({**drawn[0], "y": labels[0]}, {**drawn[1], "y": labels[1]})
        classifier, likelihood, prior = self.classifier, self.likelihood, self.prior
        words = {
            "x": f"data, {self._support}",
            "y": "labels",
            "z": "latents",
            "probabilities": "q(y | x)",
            "label": "the most probable label",
        }

        def classes(x: Tensor) -> dict[str, Tensor]:
            logits = classifier(x)
            return {"probabilities": logits.softmax(-1), "label": logits.argmax(-1)}

        def p_x(z: Tensor, y: Tensor) -> Any:
            return likelihood(append(z, self._one_hot(y)))

        def log_densities(x: Tensor, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return p_x(z, y).log_prob(x), prior().log_prob(z) - math.log(self.classes)

        return [
            Program("classifier", classes, [classifier], picked(examples, "x"), words, "q(y | x)"),
            encoder(self._posterior, [self.posterior], picked(examples, "x", "y"), words, "q(z | x, y)"),
            conditional("decoder", p_x, [likelihood], picked(examples, "z", "y"), words, "p(x | y, z)"),
            log_density(
                log_densities,
                [likelihood, prior],
                picked(examples, "x", "z", "y"),
                words,
                ("log p(x | y, z)", "log p(y) + log p(z)"),
            ),
        ]

    def _posterior(self, x: Tensor, y: Tensor) -> Any:
        return posterior_given(self.posterior, x, self._one_hot(y), len(self.event_shape))

    def _most_probable(self, x: Tensor) -> Tensor:
        return self.classify(x).argmax(-1)

    def _one_hot(self, y: Tensor) -> Tensor:
        # torch's one_hot looks at the values first, which cannot be compiled.
        return (y[..., None] == torch.arange(self.classes, device=y.device)).to(self._label_logits)
