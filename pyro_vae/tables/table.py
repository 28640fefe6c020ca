"""A data frame as a tensor, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from pyro_vae.data.exact import check_exact
from pyro_vae.html_table import WithSummary, html_table
from pyro_vae.likelihoods import Columns
from pyro_vae.nn import ColumnFeatures
from pyro_vae.tables.as_pandas import as_pandas
from pyro_vae.tables.column import Column
from pyro_vae.tables.find_kind import find_column

if TYPE_CHECKING:
    import polars as pl


class Table(WithSummary):
    """How the columns of a data frame become a tensor ``[n, columns]``, and tensors become data frames again.

    Args:
        columns: All columns of the frame, also those that are left out.

    Attributes:
        columns: These columns.
        kept: The columns that are in the tensor, in its order.

    Raises:
        ValueError: If no column is left.

    Example:
        >>> import pandas as pd
        >>> from pyro_vae.tables import Table
        >>> frame = pd.DataFrame({"age": [31.5, None, 48.0], "smokes": ["yes", "no", None]})
        >>> table = Table.of(frame)
        >>> table.tensor(frame)
        tensor([[31.5000,  1.0000],
                [    nan,  0.0000],
                [48.0000,     nan]])
    """

    def __init__(self, columns: list[Column]) -> None:
        self.columns = columns
        self.kept = [column for column in columns if column.kind != "drop"]
        if not self.kept:
            example = f", such as {columns[0].name!r} ({columns[0].why})" if columns else ""
            raise ValueError(f"no column of the table is left: all are dropped{example}")

    @classmethod
    def of(cls, frame: pd.DataFrame | pl.DataFrame, kinds: Mapping[str, str] | None = None) -> Table:
        """Finds the kind of every column: real, positive, count, binary, categorical, ordinal, or drop.

        Args:
            frame: The data, one datapoint in a row: a data frame of pandas or polars.
            kinds: The kinds of some columns by name, where they are known.

        Raises:
            TypeError: If ``frame`` is not a data frame of pandas or polars.
            ValueError: If it is empty, has two columns of one name, or the kind of a column cannot be told; or if
                ``kinds`` names a column that does not exist, or a kind that the values do not have.
        """
        frame = as_pandas(frame)
        kinds = dict(kinds or {})
        unknown = kinds.keys() - set(map(str, frame.columns))
        if unknown:
            raise ValueError(
                f"kinds has the column {min(unknown)!r}; the table has {', '.join(map(str, frame.columns))}"
            )
        return cls([find_column(frame[name], kinds.get(str(name))) for name in frame.columns])

    @property
    def num_parameters(self) -> int:
        """How many outputs the network of :meth:`likelihood` has."""
        return sum(column.module().num_parameters for column in self.kept)

    @property
    def num_features(self) -> int:
        """How many inputs the network of :meth:`encoder` gets."""
        return sum(column.module().num_features + 1 for column in self.kept)

    def likelihood(self, network: nn.Module) -> Columns:
        """The likelihood of these columns; the network maps latents to ``[*batch, num_parameters]``."""
        return Columns(network, [column.module() for column in self.kept])

    def encoder(self, network: nn.Module) -> ColumnFeatures:
        """An encoder of these columns; the network maps ``[*batch, num_features]`` to what the posterior takes."""
        return ColumnFeatures(network, [column.module() for column in self.kept])

    def features(self) -> ColumnFeatures:
        """The features of these columns with NaN for missing values, for ``posteriors.ProductOfExperts``."""
        return ColumnFeatures(nn.Identity(), [column.module() for column in self.kept], keep_gaps=True)

    def tensor(self, frame: pd.DataFrame | pl.DataFrame) -> Tensor:
        """The data as numbers ``[n, columns]``, NaN where a value is missing.

        Raises:
            TypeError: If ``frame`` is not a data frame of pandas or polars.
            ValueError: If a column is missing, or a value is invalid in its column, such as a category that the table
                does not have.
        """
        frame = as_pandas(frame)
        names = {str(name): name for name in frame.columns}
        missing = [column.name for column in self.kept if column.name not in names]
        if missing:
            raise ValueError(f"the frame has no column {missing[0]!r}, which the table has")
        numbers = [torch.from_numpy(column.numbers(frame[names[column.name]])) for column in self.kept]
        dtype = torch.get_default_dtype()
        for column, values in zip(self.kept, numbers, strict=True):
            check_exact(f"column {column.name!r}", values, dtype)
        return torch.stack(numbers, dim=1).to(dtype)

    def frame(self, x: Tensor) -> pd.DataFrame:
        """Numbers ``[n, columns]`` as a data frame of pandas, with the dtypes that the columns had.

        Numbers of categories are rounded to the nearest category, counts and integers to the nearest integer.

        Raises:
            ValueError: If x has another number of columns.
        """
        if x.ndim != 2 or x.shape[1] != len(self.kept):
            raise ValueError(f"x has shape {list(x.shape)}; expected [n, {len(self.kept)}]")
        numbers = x.detach().cpu().double().numpy()
        return pd.DataFrame({column.name: column.values(numbers[:, i]) for i, column in enumerate(self.kept)})

    def summary(self) -> str:
        """Each column with its kind, and why."""
        width = max(len(column.name) for column in self.columns)
        return "\n".join(f"{column.name:<{width}}  {_words(column)}" for column in self.columns)

    def to_json(self) -> list[dict[str, Any]]:
        """The columns as JSON can hold them."""
        return [{**vars(column), "categories": list(column.categories)} for column in self.columns]

    @classmethod
    def from_json(cls, content: list[dict[str, Any]]) -> Table:
        """The table that :meth:`to_json` has described.

        Raises:
            Exception: If the content is not such a description.
        """
        return cls([Column(**{**each, "categories": tuple(each["categories"])}) for each in content])

    def __repr__(self) -> str:
        counts = pd.Series([column.kind for column in self.kept]).value_counts()
        dropped = len(self.columns) - len(self.kept)
        words = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        return f"Table({len(self.kept)} columns: {words}{f'; {dropped} dropped' if dropped else ''})"

    def _repr_html_(self) -> str:
        return html_table({column.name: _words(column) for column in self.columns})


def _words(column: Column) -> str:
    of = f", {len(column.categories)} categories" if column.kind in ("categorical", "ordinal") else ""
    return f"{column.kind}{of} ({column.why})"
