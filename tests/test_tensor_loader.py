"""Loaders of tensors in memory give the batches that torch's own loader gives, without asking for items one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.infer import Trace_ELBO
from torch.utils.data import DataLoader, Dataset, StackDataset, Subset, TensorDataset, random_split

from pyro_vae import SVI, evidence, fit
from pyro_vae.programs.tensor_loader import by_indexing

N = 11
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
WIDE = torch.arange(2.0 * N).view(2, N).T  # its rows are not contiguous
LABELS = torch.arange(N)
SETS = {
    "tensor": X,
    "one tensor": TensorDataset(X),
    "several": TensorDataset(X, LABELS, WIDE, X > 0),
    "stacked": StackDataset(X, TensorDataset(WIDE, LABELS)),
    "by name": StackDataset(x=X, y=Subset(LABELS, range(N))),
    "subset": Subset(TensorDataset(X, LABELS), [3, -1, 0, 0, 5]),
    "subset of a subset": Subset(Subset(X, torch.tensor([8, 2, 4, 10])), [3, 1, 0]),
    "split": random_split(TensorDataset(X, LABELS), [0.6, 0.4], torch.Generator().manual_seed(2))[0],
}


def same(first, second) -> None:
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        same(list(first.values()), list(second.values()))
    else:
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            same(one, other)


@pytest.mark.parametrize("dataset", SETS.values(), ids=SETS)
@settings(max_examples=30)
@given(
    batch_size=st.integers(1, N + 2),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    has_generator=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_batches_and_random_numbers_are_those_of_torch(
    dataset, batch_size, shuffle, drop_last, has_generator, seed
):
    def two_passes(change):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed) if has_generator else None
        loader = change(
            DataLoader(dataset, batch_size, shuffle=shuffle, drop_last=drop_last, generator=generator, num_workers=0)
        )
        batches = [batch for _ in range(2) for batch in loader]
        states = [torch.get_rng_state(), *([generator.get_state()] if has_generator else [])]
        return [len(loader), batches, states]

    expected, faster = two_passes(lambda loader: loader), two_passes(by_indexing)
    assert expected[0] == faster[0]
    same(expected[1:], faster[1:])


@pytest.mark.parametrize("sampler", [[4, 2, 2, 9], torch.tensor([1, 10, 3])], ids=["list", "tensor"])
def test_samplers_of_users(sampler):
    loader = DataLoader(TensorDataset(X, LABELS), 3, sampler=sampler)
    same(list(by_indexing(loader)), list(loader))
    batches = [[1, 2], [3], [0, 0, 0]]
    loader = DataLoader(TensorDataset(X, LABELS), batch_sampler=batches)
    same(list(by_indexing(loader)), list(loader))


@pytest.mark.parametrize("index", [N, -N - 1])
def test_rows_that_are_not_there(index):
    with pytest.raises(IndexError):
        list(by_indexing(DataLoader(TensorDataset(X), sampler=[index])))


class Doubled(TensorDataset):
    def __getitem__(self, index):
        return tuple(2 * each for each in super().__getitem__(index))


class Reversed(DataLoader):
    def __iter__(self):
        return iter(list(super().__iter__())[::-1])


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Doubled(X), 4),
        DataLoader(Subset(Doubled(X), range(4)), 4),
        DataLoader(StackDataset(X, Doubled(X)), 4),
        DataLoader(TensorDataset(X), 4, collate_fn=len),
        DataLoader(TensorDataset(X), batch_size=None),
        DataLoader(X.tolist(), 4),
        DataLoader(TensorDataset(X.to_sparse()), 4),
        Reversed(TensorDataset(X), 4),
    ],
    ids=[
        "own items",
        "own items in a subset",
        "own items in a stack",
        "own collate_fn",
        "no batches",
        "lists",
        "sparse",
        "own loader",
    ],
)
def test_what_users_made_themselves_is_left_alone(loader):
    assert by_indexing(loader) is loader


@pytest.fixture
def no_items(monkeypatch):
    """Fails as soon as an item of a data set is asked for by itself."""

    def refuse(dataset: Dataset, index: object) -> None:
        raise AssertionError(f"item {index} of {dataset} was asked for")

    for kind in (TensorDataset, StackDataset, Subset):
        monkeypatch.setattr(kind, "__getitem__", refuse)
        monkeypatch.setattr(kind, "__getitems__", refuse, raising=False)


@pytest.mark.usefixtures("no_items")
class TestNoItemIsAskedFor:
    def test_by_fit(self, vae, x):
        rows = TensorDataset(x, torch.arange(len(x)))
        for data in (DataLoader(rows, 3, shuffle=True), rows, Subset(rows, [4, 1, 2]), (x, torch.arange(len(x)))):
            fit(vae, data, Subset(rows, [1, 2]), epochs=1, compile=False, progress=False)

    def test_by_svi(self, vae, x):
        svi = SVI(vae.model, vae.guide, torch.optim.Adam(vae.parameters()), Trace_ELBO())
        assert svi.epoch(DataLoader(TensorDataset(x, torch.arange(len(x))), 3)) > 0

    def test_by_evidence(self, vae, x):
        rows = Subset(TensorDataset(x), [6, 0, 3])
        for data in (rows, DataLoader(rows, 2)):
            assert len(evidence.importance(vae.model, vae.guide, data, num_samples=4).log_prob) == 3
