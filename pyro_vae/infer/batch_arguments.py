"""What two programs are called with, of what a data loader gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.data.arrays import as_tensor
from pyro_vae.programs.arguments import most_tensors, parameters_of

__all__ = ["BatchArguments"]


class BatchArguments:
    """Picks the arguments of the programs from a batch.

    Of a tuple they get the first as many as they take, in their order; of a dictionary what has the names of their
    arguments, as keywords. NumPy's arrays become tensors.

    Args:
        model: The model, whose arguments are those of the guide too.

    Attributes:
        most: How many of a tuple the programs take; None if any number.
        required: The names of those without a default.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        parameters = parameters_of(model)
        kinds = {parameter.kind for parameter in parameters}
        places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        self.most = most_tensors(parameters)
        self.required = [each.name for each in places if each.default is Parameter.empty]
        self._names = None if Parameter.VAR_KEYWORD in kinds else named
        self._first = places[0].name if places else None

    def of(self, batch: Any) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The arguments and keyword arguments.

        Raises:
            TypeError: If they are not tensors, or are too few.
        """
        if isinstance(batch, Mapping):
            chosen = {name: batch[name] for name in batch if self._names is None or name in self._names}
            keywords = {name: _tensor(value) for name, value in chosen.items()}
            missing = [name for name in self.required if name not in keywords]
            if missing or not keywords:
                wanted = ", ".join(missing or self._names or ())
                raise TypeError(f"a batch has the keys {', '.join(map(str, batch))}; the programs take {wanted}")
            return (), dict(sorted(keywords.items(), key=lambda item: item[0] != self._first))  # x is first
        values = list(batch) if isinstance(batch, list | tuple) else [batch]
        arguments = tuple(_tensor(value) for value in values[: self.most])
        if not arguments:
            raise TypeError("the data give batches of nothing; expected tensors")
        if len(arguments) < len(self.required):
            wanted = ", ".join(self.required)
            raise TypeError(f"a batch has {len(arguments)} tensors; the programs take {len(self.required)}: {wanted}")
        return arguments, {}


def _tensor(value: Any) -> Tensor:
    if isinstance(value, np.ndarray | np.generic):
        return as_tensor(value)
    if not isinstance(value, Tensor):
        raise TypeError(f"the data give batches of {type(value).__name__}; expected tensors")
    return value
