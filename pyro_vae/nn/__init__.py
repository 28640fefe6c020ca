"""Networks for likelihoods and posteriors. They broadcast over leading dimensions.

Any other module that broadcasts can be used as well; :class:`Broadcast` wraps modules that take one batch dimension.
"""

from pyro_vae.nn.broadcast import Broadcast
from pyro_vae.nn.convolutional import convolutional_decoder, convolutional_encoder
from pyro_vae.nn.fill_missing import FillMissing
from pyro_vae.nn.gated_perceptron import gated_mlp
from pyro_vae.nn.multilayer_perceptron import mlp
from pyro_vae.nn.one_hot import OneHot
from pyro_vae.nn.residual_block import ResidualBlock

__all__ = [
    "Broadcast",
    "FillMissing",
    "OneHot",
    "ResidualBlock",
    "convolutional_decoder",
    "convolutional_encoder",
    "gated_mlp",
    "mlp",
]
