"""Programs that cannot be recorded run as in Pyro, with one warning."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from as_in_pyro import PYRO, assert_same, run
from programs_for_svi import Program, call
from pyro import distributions as dist
from torch import Tensor

pytestmark = pytest.mark.usefixtures("float64")


def with_loc(change: Callable[[Tensor, Tensor], Any]) -> Callable[[], Program]:
    """A program whose mean is ``change(loc, x)``."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(change(pyro.param("loc", torch.tensor(0.2)), x) + z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x, pyro.param("scale", torch.tensor(0.5))))

    signs = (1, 1, -1, 1, -1, -1, 1, 1)
    return lambda: Program(model, guide, [call(sign * torch.rand(5)) for sign in signs])


HARD = {
    "structure": lambda loc, x: loc.exp() if x.sum() > 0 else -loc,
    "item": lambda loc, x: loc * int(x.sum().item() > 0),
    "Python's noise": lambda loc, _: loc * random.random(),
    "numpy's noise": lambda loc, _: loc * np.random.rand(),  # noqa: NPY002
    "numpy": lambda loc, x: loc * torch.from_numpy(np.sin(x.numpy())),
}


@pytest.mark.parametrize("hard", HARD)
def test_what_cannot_be_recorded_runs_as_it_is(hard):
    def seed(now):
        random.seed(now.i)
        np.random.seed(now.i)  # noqa: NPY002

    with pytest.warns(UserWarning, match="cannot be recorded") as caught:
        ours = run(with_loc(HARD[hard]), "graph", before=seed)
    assert len([one for one in caught if "cannot be recorded" in str(one.message)]) == 1
    assert_same(ours, run(with_loc(HARD[hard]), PYRO, before=seed))


def test_a_program_that_counts_its_runs():
    """It may be run more often, to try whether it can be recorded, but then once a step as in Pyro."""
    seen: list[int] = []
    counter = count()

    def counts(loc, _):
        seen.append(next(counter))
        return loc * seen[-1]

    with pytest.warns(UserWarning, match="cannot be recorded"):
        result = run(with_loc(counts), "graph")
    assert seen[-4:] == list(range(seen[-1] - 3, seen[-1] + 1))
    assert all(result.statements)
