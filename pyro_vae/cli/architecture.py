"""The parts of a VAE, chosen by name, each with its own options."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

from tyro.conf import arg

import pyro_vae
from pyro_vae.checks import check_count
from pyro_vae.cli.defaults import by_default
from pyro_vae.cli.likelihoods import LIKELIHOODS
from pyro_vae.cli.networks import NETWORKS
from pyro_vae.cli.posteriors import POSTERIORS
from pyro_vae.cli.priors import PRIORS

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from pyro_vae.cli.seen import Seen
    from pyro_vae.cli.wrapping import Units


TABLES = {"prior": PRIORS, "likelihood": LIKELIHOODS, "posterior": POSTERIORS, "network": NETWORKS}
DEFAULTS = {"prior": "standard-normal", "likelihood": "bernoulli", "posterior": "normal", "network": "mlp"}

Prior = TypeVar("Prior", bound=Any)
Likelihood = TypeVar("Likelihood", bound=Any)
Posterior = TypeVar("Posterior", bound=Any)
Network = TypeVar("Network", bound=Any)


class _Flat:
    """Flattens data to vectors, instead of a network."""

    def encoder(self, event: Sequence[int], _: int) -> Module:
        from torch.nn import Flatten

        return Flatten(-len(event))


def _one_of(kind: str) -> Any:
    table = TABLES[kind]
    lines = [f"{name}: {part.__doc__}" for name, part in table.items()]
    names: Any = Literal[tuple(table)]
    hint = f"(default: {DEFAULTS[kind]}{'' if kind == 'prior' else '; for data from a file or folder, by the data'})"
    return arg(constructor=names, help="\n".join(lines), help_behavior_hint=hint)


@dataclass(frozen=True)
class Architecture(Generic[Prior, Likelihood, Posterior, Network]):
    """The names of the parts, and the options of each part."""

    prior_options: Annotated[Prior, arg(name="prior")]
    likelihood_options: Annotated[Likelihood, arg(name="likelihood")]
    posterior_options: Annotated[Posterior, arg(name="posterior")]
    network_options: Annotated[Network, arg(name="network")]
    prior: Annotated[str, _one_of("prior")] = DEFAULTS["prior"]
    likelihood: Annotated[str, _one_of("likelihood")] = DEFAULTS["likelihood"]
    posterior: Annotated[str, _one_of("posterior")] = DEFAULTS["posterior"]
    network: Annotated[str, _one_of("network")] = DEFAULTS["network"]
    latent_dim: int = 50
    """Number of latent dimensions."""
    missing: Annotated[Literal["auto", "yes", "no"], by_default("auto: yes if the training data have NaN")] = "auto"
    """Whether values may be missing (NaN): log p(x) is then that of the observed values."""
    standardize: Annotated[Literal["auto", "yes", "no"], by_default("auto: yes for real numbers from a file")] = "auto"
    """Whether networks work with standardized data. log p(x) is in the units of the data in any case."""

    @classmethod
    def chosen(cls, words: Sequence[str]) -> Any:
        """This class with the options of the parts that a command line names."""
        parser = ArgumentParser(add_help=False, allow_abbrev=False)
        for kind in TABLES:
            parser.add_argument(f"--{kind}", nargs="?")
        names = vars(parser.parse_known_args(words)[0])
        # An unknown name is reported later.
        types = (table.get(names[kind], table[DEFAULTS[kind]]) for kind, table in TABLES.items())
        generic: Any = cls
        return generic[tuple(types)]

    def words(self, binarized: str) -> str:
        """The parts in words, and how to choose others."""
        how = f", of data binarized ({binarized})" if binarized != "none" else ""
        return f"{self.likelihood} likelihood{how}, {self.network} networks; change with --likelihood and --network"

    def build(self, seen: Seen, train: Tensor) -> pyro_vae.VAE:
        """Makes the VAE, with random weights from torch's generators.

        Args:
            seen: The data.
            train: The training data as they are trained on, ``[n, *event]``.

        Raises:
            ValueError: If an option is invalid, or the parts do not fit together or to the data.
        """
        check_count("--latent-dim", self.latent_dim)
        from pyro_vae.cli.wrapping import REAL, units_of, wrapped_encoder, wrapped_likelihood

        network: Any = self.network_options
        gaps = seen.has_gaps if self.missing == "auto" else self.missing == "yes"
        is_real = seen.standardize and self.likelihood in REAL
        standardized = is_real if self.standardize == "auto" else self.standardize == "yes"
        units = units_of(seen.splits.train) if standardized else None
        encoder: Any = wrapped_encoder(seen, self.likelihood, self._encoder, gaps, units)
        if self.posterior == "product-of-experts":
            encoder = self._features(seen, train, units)
        posterior = self.posterior_options(encoder, self.latent_dim)
        decoder = partial(network.decoder, self.latent_dim)
        likelihood = wrapped_likelihood(seen, self.likelihood, self.likelihood_options, decoder, gaps, units)
        return pyro_vae.VAE(self.prior_options(self.latent_dim, posterior, train), likelihood, posterior)

    def _features(self, seen: Seen, train: Tensor, units: Units | None) -> tuple[Module, int]:
        """A module from data to vectors of features, with NaN for missing values, and the number of features."""
        from pyro_vae.cli.wrapping import wrapped_encoder

        if seen.table is not None and self.likelihood == "columns":
            features: Module = seen.table.features()
        else:
            flat: Any = self
            flat = replace(flat, network_options=_Flat())
            features = wrapped_encoder(seen, self.likelihood, flat._encoder, False, units)(0)
        return features, features(train[:1]).shape[-1]

    def _encoder(self, event: Sequence[int], outputs: int) -> Module:
        """A network from data to the given number of outputs; classes are one-hot encoded."""
        network: Any = self.network_options
        if self.likelihood != "categorical":
            return network.encoder(event, outputs)
        classes = self.likelihood_options.classes
        return pyro_vae.nn.OneHot(network.encoder((*event, classes), outputs), classes)
