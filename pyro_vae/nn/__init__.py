"""Networks for likelihoods and posteriors. They broadcast over leading dimensions.

Any other module that broadcasts can be used as well; :class:`Broadcast` wraps modules that take one batch dimension.
"""

from pyro_vae.nn.broadcast import Broadcast
from pyro_vae.nn.column_features import ColumnFeatures
from pyro_vae.nn.convolutional import convolutional_decoder, convolutional_encoder
from pyro_vae.nn.fill_missing import FillMissing
from pyro_vae.nn.gated_perceptron import gated_mlp
from pyro_vae.nn.mark_missing import MarkMissing
from pyro_vae.nn.multilayer_perceptron import mlp
from pyro_vae.nn.one_hot import OneHot
from pyro_vae.nn.recurrent import recurrent_decoder, recurrent_encoder
from pyro_vae.nn.residual_block import ResidualBlock
from pyro_vae.nn.series import series_decoder, series_encoder
from pyro_vae.nn.size_factor import Log1p, SizeFactor
from pyro_vae.nn.standardize import Standardize

__all__ = [
    "Broadcast",
    "ColumnFeatures",
    "FillMissing",
    "Log1p",
    "MarkMissing",
    "OneHot",
    "ResidualBlock",
    "SizeFactor",
    "Standardize",
    "convolutional_decoder",
    "convolutional_encoder",
    "gated_mlp",
    "mlp",
    "recurrent_decoder",
    "recurrent_encoder",
    "series_decoder",
    "series_encoder",
]
