"""Kinds of columns in a table, for :class:`~pyro_vae.likelihoods.Columns` (Nazabal et al. 2020, section 3).

A kind is an ``nn.Module``. It has ``num_parameters`` and ``num_features``. ``kind(parameters)``, for the outputs of a
network ``[*batch, num_parameters]``, returns the distribution of one value, of batch shape ``[*batch]``.
``kind.features(x)``, for values ``[*batch]``, returns what an encoder gets, ``[*batch, num_features]``. The value 1 has
to be possible. Values are in the data's own units, so that log p(x) is too.

=========================================  ===============
values                                     kind
=========================================  ===============
real numbers                               ``Real``
positive numbers                           ``Positive``
counts 0, 1, 2, ...                        ``Count``
0 or 1                                     ``Binary``
categories 0, ..., K - 1 without an order  ``Categorical``
categories 0, ..., K - 1 with an order     ``Ordinal``
=========================================  ===============
"""

from pyro_vae.likelihoods.columns.binary import Binary
from pyro_vae.likelihoods.columns.categorical import Categorical
from pyro_vae.likelihoods.columns.count import Count
from pyro_vae.likelihoods.columns.ordinal import Ordinal
from pyro_vae.likelihoods.columns.positive import Positive
from pyro_vae.likelihoods.columns.real import Real

__all__ = ["Binary", "Categorical", "Count", "Ordinal", "Positive", "Real"]
