"""Tables: data frames of pandas as tensors, and back.

.. code-block:: python

    table = Table.of(frame)
    x = table.tensor(frame)  # [n, columns], NaN where a value is missing
    vae = VAE(
        priors.StandardNormal(4),
        likelihoods.Incomplete(table.likelihood(nn.mlp(4, [64], table.num_parameters))),
        posteriors.Normal(table.encoder(nn.mlp(table.num_features, [64], 8))),
    )
    synthetic = table.frame(vae.sample(100))
    filled = fill_table(table, vae.model, vae.guide, frame).frame
"""

from pyro_vae.tables.filled import FilledTable, fill_table
from pyro_vae.tables.table import Table

__all__ = ["FilledTable", "Table", "fill_table"]
