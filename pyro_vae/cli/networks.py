"""Networks by name, with their options: pairs of an encoder and a decoder.

To add one, write a dataclass here and add a line to the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyro_vae

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class Multilayer:
    """Multilayer perceptrons."""

    hidden: tuple[int, ...] = (400,)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""

    def encoder(self, event: Sequence[int], outputs: int) -> Module:
        return pyro_vae.nn.mlp(event, self.hidden, outputs)

    def decoder(self, latent_dim: int, outputs: Sequence[int]) -> Module:
        return pyro_vae.nn.mlp(latent_dim, self.hidden[::-1], outputs)


@dataclass(frozen=True)
class GatedMultilayer:
    """Multilayer perceptrons with gated layers (Tomczak & Welling 2018)."""

    hidden: tuple[int, ...] = (300, 300)
    """Widths of the hidden layers of the encoder; the decoder mirrors them."""

    def encoder(self, event: Sequence[int], outputs: int) -> Module:
        return pyro_vae.nn.gated_mlp(event, self.hidden, outputs)

    def decoder(self, latent_dim: int, outputs: Sequence[int]) -> Module:
        return pyro_vae.nn.gated_mlp(latent_dim, self.hidden[::-1], outputs)


@dataclass(frozen=True)
class Convolutional:
    """Convolutions that halve the size of images, and transposed convolutions that double it."""

    channels: tuple[int, ...] = (32, 64)
    """Number of channels after each convolution of the encoder; the decoder mirrors them."""
    residual: bool = False
    """Add a residual block after each convolution of the encoder and before each one of the decoder."""

    @property
    def _block(self) -> type[Module]:
        from torch.nn import Identity

        return pyro_vae.nn.ResidualBlock if self.residual else Identity

    def encoder(self, event: Sequence[int], outputs: int) -> Module:
        return pyro_vae.nn.convolutional_encoder(event, outputs, self.channels, block=self._block)

    def decoder(self, latent_dim: int, outputs: Sequence[int]) -> Module:
        return pyro_vae.nn.convolutional_decoder(latent_dim, outputs, self.channels[::-1], block=self._block)


@dataclass(frozen=True)
class Series:
    """Convolutions over time that halve the length of series, and transposed ones that double it."""

    channels: tuple[int, ...] = (32, 64)
    """Number of channels after each convolution of the encoder that halves the length; the decoder mirrors them."""

    def encoder(self, event: Sequence[int], outputs: int) -> Module:
        if len(event) == 2 and event[0] <= 2 ** (len(self.channels) - 1):
            raise ValueError(
                f"a series has {event[0]} steps, too few for networks that halve them {len(self.channels)} times; "
                "if the array is [n, features, steps], exchange its last two dimensions"
            )
        return pyro_vae.nn.series_encoder(event, outputs, self.channels)

    def decoder(self, latent_dim: int, outputs: Sequence[int]) -> Module:
        return pyro_vae.nn.series_decoder(latent_dim, outputs, self.channels[::-1])


@dataclass(frozen=True)
class Recurrent:
    """Gated recurrent units (Cho et al. 2014), for series; --compile none is often faster."""

    hidden: int = 64
    """Size of the hidden state."""

    def encoder(self, event: Sequence[int], outputs: int) -> Module:
        return pyro_vae.nn.recurrent_encoder(event, outputs, self.hidden)

    def decoder(self, latent_dim: int, outputs: Sequence[int]) -> Module:
        return pyro_vae.nn.recurrent_decoder(latent_dim, outputs, self.hidden)


NETWORKS: dict[str, type] = {
    "mlp": Multilayer,
    "gated-mlp": GatedMultilayer,
    "convolutional": Convolutional,
    "series": Series,
    "recurrent": Recurrent,
}
