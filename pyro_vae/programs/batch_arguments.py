"""Which arguments two programs get from a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

import numpy as np
from torch import Tensor

from pyro_vae.programs.arguments import most_tensors, parameters_of
from pyro_vae.programs.arrays import as_tensor


class BatchArguments:
    """Picks the arguments of the programs from a batch.

    From a tuple, the programs get the first tensors, in order, as many as they take. From a dictionary, they get the
    entries that have the names of their arguments, as keywords. NumPy arrays become tensors.

    Args:
        model: The model. The guide has the same arguments.

    Attributes:
        most: How many tensors of a tuple the programs take; None if any number.
        required: The names of the arguments without a default.
        positional: The names of the arguments that can be passed by position, in order.
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        try:
            parameters = parameters_of(model)
        except (TypeError, ValueError):  # it has no signature: it may take anything
            parameters = [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)]
        kinds = {parameter.kind for parameter in parameters}
        places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        self.most = most_tensors(parameters)
        self.required = [each.name for each in places if each.default is Parameter.empty]
        self.positional = [each.name for each in places]
        self._names = None if Parameter.VAR_KEYWORD in kinds else named

    def of(self, batch: Any, name: str = "data") -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The arguments and keyword arguments.

        Args:
            batch: A tensor, an array, a tuple or list of them, or a dictionary.
            name: The name of the data, for messages.

        Raises:
            TypeError: If they are not tensors, or too few.
        """
        if isinstance(batch, Mapping):
            chosen = {key: batch[key] for key in batch if self._names is None or key in self._names}
            keywords = {key: _tensor(value, name) for key, value in chosen.items()}
            missing = [key for key in self.required if key not in keywords]
            if missing or not keywords:
                wanted = ", ".join(missing or self._names or ())
                raise TypeError(f"a batch has the keys {', '.join(map(str, batch))}; the programs take {wanted}")
            return (), dict(sorted(keywords.items(), key=lambda item: item[0] not in self.positional[:1]))  # x is first
        values = list(batch) if isinstance(batch, list | tuple) else [batch]
        arguments = tuple(_tensor(value, name) for value in values[: self.most])
        if not arguments:
            raise TypeError(f"{name} has batches of nothing; expected tensors")
        if len(arguments) < len(self.required):
            wanted = ", ".join(self.required)
            raise TypeError(f"a batch has {len(arguments)} tensors; the programs take {len(self.required)}: {wanted}")
        return arguments, {}


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, np.ndarray | np.generic):
        return as_tensor(value)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} has batches of {type(value).__name__}; expected tensors")
    return value
