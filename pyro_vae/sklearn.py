"""A VAE as an estimator of scikit-learn. This module needs scikit-learn: ``pip install 'pyro-vae[sklearn]'``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vae import VAE, evidence, fit
from pyro_vae.checks import check_choice, check_count
from pyro_vae.cli.architecture import Architecture
from pyro_vae.cli.likelihoods import LIKELIHOODS
from pyro_vae.cli.networks import NETWORKS
from pyro_vae.cli.posteriors import POSTERIORS
from pyro_vae.cli.priors import PRIORS, Vamp
from pyro_vae.cli.seen import seen_arrays
from pyro_vae.data import Splits
from pyro_vae.evidence.results.evidence import Evidence
from pyro_vae.likelihoods import Incomplete
from pyro_vae.system.devices import choose_device
from pyro_vae.system.randomness import seeded
from pyro_vae.system.values import default_dtype

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
    from sklearn.utils import Tags, check_array, check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("pyro_vae.sklearn needs scikit-learn 1.6: pip install 'pyro-vae[sklearn]'") from error

__all__ = ["VAETransformer"]

VECTORS = sorted(LIKELIHOODS.keys() - {"categorical", "columns"})  # likelihoods of vectors of numbers
AT_ONCE = 10_000  # rows that a network gets
WORTH_RECORDING = 100  # steps; recording a step takes as long as some hundred


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    """A VAE of vectors with scikit-learn's interface: codes, log p(x), samples.

    The parts are those of the command ``pyro-vae train``, with its defaults for an array ``[n, features]``: a Bernoulli
    likelihood for 0 and 1, negative binomial for counts, discretized logistic for 8-bit levels k / 255, and for other
    numbers a normal likelihood, whose networks work with standardized data. log p(x) is in the units of X. NaN is a
    missing value: log p(x) is then that of the observed values.

    ``score`` is the mean log p(x), by which ``cross_val_score`` and ``GridSearchCV`` choose. -``score_samples`` is an
    anomaly score. Both use :func:`~pyro_vae.evidence.estimate`, whose bias is small: the ELBO, or importance sampling
    from the posterior, would prefer models whose posterior is easy to approximate.

    Computations use the dtype of X, float32 or float64. The same integer ``random_state`` gives the same model, codes
    and scores. torch's generators are left as they were.

    Args:
        latent_dim: The number of latent dimensions.
        hidden: The widths of the hidden layers of the encoder; the decoder mirrors them.
        likelihood: ``"auto"``, or a name as for ``pyro-vae train --likelihood``, such as ``"heteroscedastic-normal"``.
        posterior: A name as for ``--posterior``, such as ``"full-normal"`` or ``"iaf"``.
        prior: A name as for ``--prior``, such as ``"mixture"``.
        missing: Whether values may be missing: ``"auto"`` (if X has NaN), True or False.
        vae: A function that makes a VAE for data ``[n, features]``, a tensor. torch's default dtype is that of the
            data while it runs. The arguments above are then not used.
        epochs: The number of passes over the data.
        batch_size: The number of rows in a step.
        lr: The learning rate of Adam.
        num_samples: None for :func:`~pyro_vae.evidence.estimate`; or a number of samples for
            :func:`~pyro_vae.evidence.importance`, which is faster, and a lower bound on average.
        device: The device, such as ``"cpu"`` or ``"cuda:1"``.
        random_state: An integer, a ``numpy.random.RandomState``, or None for NumPy's global generator.
        verbose: Whether to show progress bars.

    Attributes:
        vae_: The trained VAE.
        history_: A dictionary for each epoch, as in :class:`~pyro_vae.training.Run`.
        n_features_in_: The number of features.
        feature_names_in_: Their names, if X has some.

    Example:
        >>> from pyro_vae.sklearn import VAETransformer
        >>> X = torch.randn(50, 3).numpy()
        >>> transformer = VAETransformer(latent_dim=2, epochs=1, random_state=0).fit(X)
        >>> transformer.transform(X).shape, transformer.score_samples(X[:5]).shape
        ((50, 2), (5,))
    """

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        hidden: Sequence[int] = (64, 64),
        likelihood: str = "auto",
        posterior: str = "normal",
        prior: str = "standard-normal",
        missing: bool | str = "auto",
        vae: Callable[[Tensor], VAE] | None = None,
        epochs: int = 100,
        batch_size: int = 64,
        lr: float = 3e-3,
        num_samples: int | None = None,
        device: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.likelihood = likelihood
        self.posterior = posterior
        self.prior = prior
        self.missing = missing
        self.vae = vae
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.num_samples = num_samples
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> VAETransformer:  # noqa: ARG002, N803
        """Trains a VAE on X ``[n, features]``; y is ignored.

        Raises:
            TypeError: If an argument is of a wrong type.
            ValueError: If an argument or X is invalid.
        """
        x = self._validated(X, reset=True)
        steps = check_count("epochs", self.epochs) * len(x) / check_count("batch_size", self.batch_size)
        device = choose_device(self.device)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        with seeded(self.seed_, device):
            with default_dtype(x.dtype):
                vae = self._build(x) if self.vae is None else self.vae(x)
            if not isinstance(vae, VAE):
                raise TypeError(f"vae(X) is of type {type(vae).__name__}; expected a VAE")
            vae = vae.to(device, x.dtype)
            self.vae_ = vae
            run = fit(
                vae,
                self._moved(x),
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                compile="auto" if steps > WORTH_RECORDING else False,
                progress=bool(self.verbose),
            )
        vae.eval()
        self.history_ = run.history
        return self

    def _build(self, x: Tensor) -> VAE:
        """A VAE with the chosen parts."""
        check_count("latent_dim", self.latent_dim)
        for width in self.hidden:
            check_count("a width in hidden", width)
        check_choice("likelihood", self.likelihood, ("auto", *VECTORS))
        check_choice("posterior", self.posterior, tuple(POSTERIORS))
        check_choice("prior", self.prior, tuple(PRIORS))
        check_choice("missing", self.missing, ("auto", True, False))
        seen = replace(seen_arrays(Splits(train=x, valid=x[:0], test=x[:0])), standardize=True)  # of real numbers
        name = seen.likelihood if self.likelihood == "auto" else self.likelihood
        missing: Any = {"auto": "auto", True: "yes", False: "no"}[self.missing]
        limited = {"components": min(Vamp.components, len(x))} if self.prior == "vamp" else {}
        architecture: Architecture[Any, Any, Any, Any] = Architecture(
            prior_options=PRIORS[self.prior](**limited),
            likelihood_options=LIKELIHOODS[name](),
            posterior_options=POSTERIORS[self.posterior](),
            network_options=NETWORKS["mlp"](tuple(self.hidden)),
            prior=self.prior,
            likelihood=name,
            posterior=self.posterior,
            network="mlp",
            latent_dim=self.latent_dim,
            missing=missing,
        )
        return architecture.build(seen, x)

    @torch.no_grad()
    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """The codes of X, ``[n, latent_dim]``: means of q(z | x), or draws if it has no mean in closed form."""
        x = self._data(X)
        with seeded(self.seed_, x.device):
            z = torch.cat([self.vae_.codes(part)["z"] for part in x.split(AT_ONCE)])
        return z.flatten(1).cpu().numpy()

    @torch.no_grad()
    def inverse_transform(self, X: Any) -> np.ndarray:  # noqa: N803
        """The means of p(x | z) at codes z ``[n, latent_dim]``, ``[n, features]``."""
        check_is_fitted(self)
        codes = check_array(X, dtype=[np.float64, np.float32])
        if codes.shape[1] != self._n_features_out:
            raise ValueError(f"X has {codes.shape[1]} columns; expected {self._n_features_out}, the latent dimensions")
        parameter = next(self.vae_.parameters())
        z = torch.tensor(codes, dtype=parameter.dtype, device=parameter.device).unflatten(1, self.vae_.latent_shape)
        return torch.cat([self.vae_.likelihood(part).mean for part in z.split(AT_ONCE)]).cpu().numpy()

    def evidence(self, X: Any) -> Evidence:  # noqa: N803
        """log p(x) of each row of X, with its error: see :class:`~pyro_vae.evidence.Evidence`."""
        x = self._data(X)
        model, guide, progress = self.vae_.model, self.vae_.guide, bool(self.verbose)
        with seeded(self.seed_, x.device):
            if self.num_samples is None:
                return evidence.estimate(model, guide, x, progress=progress)
            return evidence.importance(model, guide, x, num_samples=self.num_samples, progress=progress)

    def score_samples(self, X: Any) -> np.ndarray:  # noqa: N803
        """log p(x) of each row of X, ``[n]``, in nats; :meth:`evidence` has the errors."""
        return self.evidence(X).log_prob.numpy()

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002, N803
        """The mean log p(x) of the rows of X, in nats."""
        return self.evidence(X).mean

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draws from p(x), ``[n_samples, features]``.

        Args:
            n_samples: The number of draws.
            random_state: An integer, a ``numpy.random.RandomState``, or None for NumPy's global generator.
        """
        check_is_fitted(self)
        device = next(self.vae_.parameters()).device
        with seeded(int(check_random_state(random_state).randint(2**31 - 1)), device):
            return self.vae_.sample(n_samples).cpu().numpy()

    @property
    def _n_features_out(self) -> int:
        """The number of latent dimensions, for the names of the output."""
        return prod(self.vae_.latent_shape)

    def _validated(self, X: Any, reset: bool) -> Tensor:  # noqa: N803
        """X as a tensor."""
        floats = [np.float64, np.float32]
        x = validate_data(self, X, reset=reset, dtype=floats, ensure_all_finite="allow-nan")
        return torch.from_numpy(np.array(x, order="C"))  # a copy: X may be read-only or reversed

    def _data(self, X: Any) -> Tensor:  # noqa: N803
        """X as the VAE takes it."""
        check_is_fitted(self)
        return self._moved(self._validated(X, reset=False))

    def _moved(self, x: Tensor) -> Tensor:
        """The data in the dtype and on the device of the VAE.

        Raises:
            ValueError: If the VAE does not take them.
        """
        vae = self.vae_
        x = x.to(next(vae.parameters()).device, vae.event_dtype)
        if x.isnan().any() and not isinstance(vae.likelihood, Incomplete):
            raise ValueError("X has missing values (NaN), but X in fit had none; expected missing=True or no NaN")
        vae.check(x)
        return x

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
