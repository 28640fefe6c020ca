"""Few labels and many datapoints without: the M2 model."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import torch
from pyro import distributions as dist
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyro_vae.checks import check_count, check_positive
from pyro_vae.distributions import as_pyro
from pyro_vae.models.conditional import append, append_zeros
from pyro_vae.models.latent_variable_model import LatentVariableModel
from pyro_vae.models.parameters import declare_parameters
from pyro_vae.models.parts_fit import check_particles, check_parts, trial

__all__ = ["SemiSupervisedVAE"]


class SemiSupervisedVAE(LatentVariableModel):
    """p(y) p(z) p(x | y, z) and q(y | x) q(z | x, y), the label y known or not (Kingma et al. 2014, M2).

    Called with labels, the programs observe them at site ``"y"``. Called without, y is a latent that Pyro can sum out:

        unlabelled = SVI(vae.model, vae.guide, optim, TraceEnum_ELBO(max_plate_nesting=1))
        labelled = SVI(vae.model, vae.guide, optim, Trace_ELBO())
        labels = SVI(vae.label_model, vae.label_guide, optim, Trace_ELBO())
        unlabelled.step(x); labelled.step(x, y); labels.step(x, y)

    These are equations 7, 6 and the classification loss of equation 9, where ``label_weight`` is alpha. Without labels
    both are programs of x alone, so that log p(x) can be estimated as that of any others.

    Args:
        prior: ``prior()`` returns p(z), with event shape ``[latent]``.
        likelihood: Called with z and the label, one-hot, ``[*batch, latent + classes]``; returns p(x | y, z).
        posterior: Called with x, flattened, and the label, ``[*batch, pixels + classes]``; returns q(z | x, y).
        classifier: A network that maps x ``[*batch, *event]`` to logits ``[*batch, classes]``: q(y | x).
        classes: The number of classes. They are equally probable a priori.
        label_weight: The weight of the classification loss, for each datapoint.

    Raises:
        TypeError: If a part is not a module or does not return a distribution.
        ValueError: If the parts do not fit together; they are run once, on one draw from the prior, to find out.
    """

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
        z, x, support = check_parts(prior, likelihood, posterior, append_zeros(classes))
        with trial({"classifier": classifier}):
            try:
                logits = classifier(x)
            except (RuntimeError, ValueError, IndexError) as error:
                raise ValueError(f"classifier(x), for x of shape {list(x.shape)}, failed: {error}") from error
        if not isinstance(logits, Tensor) or logits.shape != (1, classes):
            shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"classifier(x), for x of shape {list(x.shape)}, gives {shape}; expected [1, {classes}]")
        super().__init__(x, support)
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior
        self.classifier = classifier
        self.label_weight = label_weight
        self.register_buffer("_label_logits", z.new_zeros(classes), persistent=False)  # p(y), up to a constant

    def model(self, x: Tensor, y: Tensor | None = None, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:  # noqa: ARG002
        """The program p(y) p(z) p(x | y, z), with x ``[n, *event]`` observed, and y ``[n]`` if given. Returns x."""
        self._validate(x, y)
        declare_parameters(self, self.prior, self.likelihood)
        with pyro.plate("data", x.shape[0], dim=-1):
            label = pyro.sample("y", dist.Categorical(logits=self._label_logits, validate_args=False), obs=y)
            z = pyro.sample("z", as_pyro(self.prior()))
            z = append(z, self._one_hot(label))
            check_particles("likelihood(z)", self.likelihood, z)
            return pyro.sample("x", as_pyro(self.likelihood(z)), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None, *, observations: Mapping[str, Tensor] | None = None) -> Tensor:
        """The program q(y | x) q(z | x, y), without the first if y ``[n]`` is given. Returns z.

        Observations are as in :meth:`VAE.guide <pyro_vae.VAE.guide>`; labels that are given may be among them.
        """
        self._validate(x, y)
        declare_parameters(self, self.posterior, *([self.classifier] if y is None else []))
        with pyro.plate("data", x.shape[0], dim=-1):
            x, y = self.data_of(x, observations), (observations or {}).get("y", y)
            if y is None:
                q_y = dist.Categorical(logits=self.classifier(x), validate_args=False)
                y = pyro.sample("y", q_y, infer={"enumerate": "parallel"})
            return pyro.sample(
                "z", as_pyro(self.posterior(append(x.flatten(-len(self.event_shape)), self._one_hot(y))))
            )

    def label_model(self, x: Tensor, y: Tensor) -> None:
        """The program that observes y ``[n]`` under q(y | x), weighted: the classification loss."""
        self._validate(x, y)
        declare_parameters(self, self.classifier)
        with pyro.plate("data", x.shape[0], dim=-1), pyro.poutine.scale(scale=self.label_weight):
            pyro.sample("y", dist.Categorical(logits=self.classifier(x), validate_args=False), obs=y)

    def label_guide(self, x: Tensor, y: Tensor) -> None:
        """The guide of :meth:`label_model`: it has no latents."""

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """q(y | x) for x ``[n, *event]``: probabilities ``[n, classes]``."""
        self.check(x)
        return self.classifier(x).softmax(-1)

    @torch.no_grad()
    def sample(self, y: Tensor) -> Tensor:
        """Draws a datapoint from p(x | y) for each label y ``[n]``: ``[n, *event]``."""
        self._check_labels(y, len(y) if isinstance(y, Tensor) and y.ndim else 0)
        return self.likelihood(append(self.prior().sample((len(y),)), self._one_hot(y))).sample()

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self._label_logits)

    def _one_hot(self, y: Tensor) -> Tensor:
        # torch's one_hot looks at the values first, which cannot be compiled.
        return (y[..., None] == torch.arange(self.classes, device=y.device)).to(self._label_logits)

    def _validate(self, x: Tensor, y: Tensor | None) -> None:
        if is_validation_enabled():
            self.check(x)
            if y is not None:
                self._check_labels(y, len(x))

    def _check_labels(self, y: Tensor, n: int) -> None:
        if not isinstance(y, Tensor) or y.dtype != torch.int64:
            kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(f"y is of type {kind}; expected a tensor of int64")
        if y.shape != (n,) or n == 0:
            raise ValueError(f"y has shape {list(y.shape)}; expected [{n or 'n'}], a label for each datapoint")
        if y.min() < 0 or y.max() >= self.classes:
            raise ValueError(f"y has labels from {y.min()} to {y.max()}; expected 0 to {self.classes - 1}")
