"""Programs of more than x, such as x with a mask and a label, through the functions of ``pyro_vae.evidence``."""

from __future__ import annotations

import inspect
import pickle
from functools import partial
from unittest.mock import patch

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pyro_vae import ConditionalVAE, evidence, likelihoods, nn, posteriors, priors, weights
from pyro_vae.evidence.estimators import climbing
from pyro_vae.infer.recording.compiled import recorded
from pyro_vae.programs.inputs import by_row

N, SIZE = 30, 4
WEIGHT = torch.tensor([[1.0, 0.2], [-0.5, 0.8], [0.3, -1.0], [0.6, 0.6]])
SHIFT = torch.tensor([[0.0, 1.0, 2.0, 0.5], [1.0, -2.0, 0.0, 0.3], [-1.5, 0.0, 0.7, 0.0]])


def model(x, mask, label):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ WEIGHT.mT + SHIFT[label], 0.8).mask(mask).to_event(1), obs=x)


def guide(x, mask, label):
    with pyro.plate("data", len(x)):
        seen = (x - SHIFT[label]) * mask
        pyro.sample("z", dist.Normal(seen @ WEIGHT / 2.0, 0.8).to_event(1))


def new_data(n=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = 1.3 * torch.randn(n, SIZE, generator=generator)
    mask, label = torch.rand(n, SIZE, generator=generator) < 0.7, torch.randint(3, (n,), generator=generator)
    return x, mask, label


def exact(x, mask, label):
    """log p(x | label) of what the mask leaves, ``[n]``."""
    covariance = (WEIGHT @ WEIGHT.mT + 0.8**2 * torch.eye(SIZE)).double()
    return torch.stack(
        [
            dist.MultivariateNormal(SHIFT[kind][seen].double(), covariance[seen][:, seen]).log_prob(row[seen].double())
            if seen.any()
            else torch.zeros((), dtype=torch.float64)
            for row, seen, kind in zip(x, mask, label, strict=True)
        ]
    )


CALLS = {
    "estimate": partial(evidence.estimate, tolerance=0.02, compile=False),
    "importance": partial(evidence.importance, num_samples=3000, chunk_size=2000),
    "importance by laplace": partial(
        evidence.importance, num_samples=500, chunk_size=2000, proposal=evidence.laplace()
    ),
    "importance, defensive": partial(evidence.importance, num_samples=3000, proposal=evidence.defensive()),
    "annealed": partial(evidence.annealed, num_chains=48, num_temperatures=20, chunk_size=600),
}


@pytest.mark.parametrize("name", CALLS)
def test_log_p_of_x_given_the_others(name):
    data = new_data()
    with patch.dict(climbing.ROWS, cpu=13):  # so that there are several blocks
        result = CALLS[name](model, guide, data)
    assert result.settled.all()
    # An error is the half-width of a 95% interval: three of them are exceeded by none.
    assert ((result.log_prob - exact(*data)).abs() <= 3 * result.error).all()
    assert result.error.median() < 0.4
    if name != "annealed":  # whose chains are not kept
        assert result.to_arviz(16)["posterior"]["z"].shape == (4, 4, N, 2)


def test_compiled_and_recorded(by_inductor):
    data = new_data(600)
    result = evidence.importance(model, guide, data, num_samples=500, compile=True)
    assert by_inductor
    assert ((result.log_prob - exact(*data)).abs() <= 3 * result.error).float().mean() > 0.99
    program, _, index = by_row(model, guide, data)

    def log_likelihood(rows):
        return (
            pyro.poutine.trace(pyro.poutine.condition(program, {"z": torch.zeros(50, 2)}))
            .get_trace(rows)
            .log_prob_sum()
        )

    fast = recorded(log_likelihood, index[:50], index[50:100])
    assert fast is not log_likelihood
    assert torch.allclose(fast(index[300:350]), log_likelihood(index[300:350]))


class Pairs(Dataset):
    """A data set of its own class, of numbers and tensors."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data[0])

    def __getitem__(self, i):
        x, mask, label = (each[i] for each in self.data)
        return x, mask, int(label)


class Arrays(Pairs):
    """Of dictionaries of NumPy arrays, of another byte order."""

    def __getitem__(self, i):
        values = (each[i].numpy() for each in self.data)
        return {name: np.asarray(each, each.dtype.newbyteorder(">")) for name, each in zip(NAMES, values, strict=True)}


NAMES = ("x", "mask", "label")


def by_name(tensors):
    """In another order than that of the arguments."""
    return dict(sorted(zip(NAMES, tensors, strict=True)))


class Stream(IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return zip(*self.data, strict=True)


FORMS = {
    "list": lambda tensors: [tuple(each[rows] for each in tensors) for rows in (slice(0, 3), slice(3, None))],
    "TensorDataset": lambda data: TensorDataset(*data),
    "Dataset": Pairs,
    "DataLoader": lambda data: DataLoader(Pairs(data), batch_size=7),
    "shuffled": lambda data: DataLoader(Pairs(data), batch_size=7, shuffle=True),
    "last batch dropped": lambda data: DataLoader(TensorDataset(*data), batch_size=7, shuffle=True, drop_last=True),
    "with more": lambda data: (*data, torch.zeros(3)),
    "arrays": lambda data: tuple(each.numpy() for each in data),
    "arrays in double precision": lambda data: (data[0].double().numpy(), *data[1:]),
    "pairs of arrays": lambda data: [tuple(each[rows].numpy() for each in data) for rows in (slice(0, 9), slice(9, N))],
    "dictionary": by_name,
    "dictionary of arrays": lambda data: {name: each.numpy() for name, each in by_name(data).items()},
    "dictionary with more": lambda data: {"index": torch.arange(N), **by_name(data)},
    "dictionaries": lambda data: [by_name(each[rows] for each in data) for rows in (slice(0, 3), slice(3, None))],
    "loader of dictionaries": lambda data: DataLoader([by_name(row) for row in zip(*data, strict=True)], 7),
    "Dataset of arrays": Arrays,
    "stream": Stream,
    "stream in a loader": lambda data: DataLoader(Stream(data), batch_size=4),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_tuple(form):
    """In the order of the data set, all of it, and without a draw from the generator for that."""
    data = new_data()
    torch.manual_seed(4)
    expected = evidence.importance(model, guide, data, num_samples=50)
    state = torch.get_rng_state()
    torch.manual_seed(4)
    result = evidence.importance(model, guide, FORMS[form](data), num_samples=50)
    assert torch.equal(result.log_prob, expected.log_prob)
    assert torch.equal(torch.get_rng_state(), state)


def test_keywords():
    """Arguments that can be passed by name only, and some of several."""

    def by_keyword(program):
        def called(x, scale=1.0, *, label, mask):
            return program(x * scale, mask, label)

        return called

    data = new_data()
    torch.manual_seed(4)
    expected = evidence.importance(model, guide, data, num_samples=50)
    torch.manual_seed(4)
    programs = by_keyword(model), by_keyword(guide)
    result = evidence.importance(*programs, by_name(data), num_samples=50)
    assert torch.equal(result.log_prob, expected.log_prob)
    with pytest.raises(
        TypeError, match=r"x has the keys label, mask, which are no positional arguments .*; pass a tup"
    ):
        evidence.decompose_elbo(*programs, by_name(data))
    with pytest.raises(TypeError, match="x has batches with different numbers of tensors or different keys"):
        by_row(lambda **_: None, None, [{"x": data[0]}, {"y": data[0]}])


def test_a_single_tensor_in_any_form(vae, x):
    """Also of a model in another precision, which NumPy's floats get."""
    for form in (x.numpy(), x.double().numpy(), {"x": x, "label": torch.arange(len(x))}, [{"x": x[:3]}, {"x": x[3:]}]):
        assert torch.equal(by_row(vae.model, vae.guide, form)[2], x)
    vae = vae.double()
    for model in (vae.model, partial(vae.model)):
        assert by_row(model, vae.guide, x.numpy())[2].dtype == torch.float64


def test_a_sampler_of_its_own_chooses():
    data, rows = new_data(), [5, 3, 3, 20]
    loaded = by_row(model, guide, DataLoader(Pairs(data), batch_size=3, sampler=rows))
    few = by_row(model, guide, DataLoader(Pairs(data), batch_sampler=[rows[:3], rows[3:]]))
    for read in (loaded, few):
        assert all(torch.equal(got, each[rows]) for got, each in zip(read[0].tensors, data, strict=True))


def test_programs_of_x_alone_get_the_first(vae, x):
    labels = torch.arange(len(x))
    torch.manual_seed(4)
    expected = evidence.importance(vae.model, vae.guide, x, num_samples=20).log_prob
    for form in ((x, labels), [x], TensorDataset(x, labels), DataLoader(TensorDataset(x, labels), 3)):
        torch.manual_seed(4)
        result = evidence.importance(vae.model, vae.guide, form, num_samples=20)
        assert torch.equal(result.log_prob, expected)
    bounds = evidence.sandwich(vae.model, vae.guide, DataLoader(x, 3), num_chains=4, num_temperatures=3)
    assert bounds.x.shape == x.shape
    many = DataLoader(x.repeat(10, 1, 1, 1), 32)
    assert evidence.calibrate(vae.model, vae.guide, many, num_draws=9).ranks["z"].shape == (70, 2)
    assert evidence.impute(vae.model, vae.guide, TensorDataset(x), num_samples=5).x.equal(x)


def test_the_diagnostics():
    data = new_data()
    assert evidence.check_elbo(model, guide, data, chunk_size=64).passed
    parts = evidence.decompose_elbo(model, guide, data, num_particles=500)
    elbo = evidence.importance(model, guide, data, num_samples=500).elbo.mean().item()
    assert abs(parts.elbo - elbo) < 0.2
    wider = evidence.decompose_elbo(model, guide, data, more=new_data(50, seed=1))
    assert wider.num_aggregated == N + 50
    with pytest.raises(ValueError, match="more has all 30 rows of x; expected other datapoints"):
        evidence.decompose_elbo(model, guide, data, more=TensorDataset(*data))
    gap = evidence.inference_gap(model, guide, data, num_samples=200, num_steps=200)
    assert ((gap.log_prob - exact(*data)).abs() <= 3 * gap.log_prob_error).all()
    few = tuple(each[:3] for each in data)
    nuts = evidence.compare_with_nuts(model, guide, few, num_samples=20, warmup_steps=20)
    assert nuts.nuts["z"].shape[-2:] == (3, 2)
    log_weights = weights.log_weights(model, guide, data, 2000)
    assert log_weights.shape == (2000, N)
    assert (log_weights.logsumexp(0) - torch.tensor(2000.0).log() - exact(*data)).abs().max() < 0.5


@pytest.mark.parametrize("name", ["sandwich", "calibrate", "impute", "estimate"])
def test_what_draws_x_anew_says_that_it_takes_x_alone(name):
    options = {"certify": 5} if name == "estimate" else {}
    with pytest.raises(TypeError, match=r"^x has 3 tensors, .*: expected programs of x alone \(functools.partial"):
        getattr(evidence, name)(model, guide, new_data(60), **options)
    x, mask, label = new_data(60)
    bound = (partial(program, mask=mask, label=label) for program in (model, guide))
    if name == "calibrate":  # which is the recipe
        assert evidence.calibrate(*bound, x).ranks["z"].shape == (60, 2)


def test_all_functions_of_data_take_a_loader():
    """None is forgotten: each names it, or refers to ``estimate``, which does."""
    functions = [getattr(evidence, name) for name in evidence.__all__ if inspect.isfunction(getattr(evidence, name))]
    of_data = [each for each in functions if "x" in inspect.signature(each).parameters]
    assert len(of_data) == 11
    for function in of_data:
        named = "``DataLoader``" in function.__doc__
        assert named or "x: Data, as for :func:`~pyro_vae.evidence.estimate`" in function.__doc__, function
    assert "``DataLoader``" in evidence.estimate.__doc__


def test_another_label_is_another_run(tmp_path):
    x, mask, label = new_data()
    evidence.importance(model, guide, (x, mask, label), num_samples=20, keep=tmp_path / "run")
    with pytest.raises(ValueError, match=r"run is of other data or programs"):
        evidence.importance(model, guide, (x, mask, (label + 1) % 3), num_samples=20, keep=tmp_path / "run")


def test_a_conditional_vae():
    vae = ConditionalVAE(
        priors.StandardNormal(2),
        likelihoods.Normal(nn.mlp(2 + 3, [8], SIZE), 1.0),
        posteriors.Normal(nn.mlp(SIZE + 3, [8], 4)),
        conditions=3,
    )
    x, y = torch.randn(N, SIZE), torch.eye(3)[torch.arange(N) % 3]
    torch.manual_seed(4)
    expected = evidence.importance(
        partial(vae.model, y=y), partial(vae.guide, y=y), x, num_samples=30, chunk_size=10**6
    )
    torch.manual_seed(4)
    result = evidence.importance(vae.model, vae.guide, (x, y), num_samples=30, chunk_size=10**6)
    assert torch.equal(result.log_prob, expected.log_prob)
    assert torch.equal(pickle.loads(pickle.dumps(result)).log_prob, result.log_prob)
    with pytest.raises(ValueError, match="y has values that are NaN or infinite"):
        evidence.importance(vae.model, vae.guide, (x, y / 0), num_samples=30)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (
            lambda x, mask, label: (x, mask[:5], label),
            ValueError,
            r"tensor 1 of x has shape \[5, 4\]; expected 30 rows",
        ),
        (lambda x, mask, _: (x, mask, torch.tensor(1)), ValueError, r"tensor 2 of x has shape \[\]; expected 30 rows"),
        (
            lambda x, mask, label: (x, mask, label.tolist()),
            TypeError,
            "x is a tuple of Tensor and list; exp",
        ),
        (lambda *_: (), TypeError, "x is a tuple of nothing; expected tensors"),
        (
            lambda *_: {1, 2},
            TypeError,
            "x is of type set; expected a tensor of shape .*, a tuple or dictionary of tens",
        ),
        (lambda x, *_: {"x": x}, TypeError, "a batch has the keys x; the programs take mask, label"),
        (lambda x, *_: x.numpy(), TypeError, "a batch has 1 tensors; the programs take 3: x, mask, label"),
        (lambda x, *_: DataLoader([{"x": row} for row in x]), TypeError, "a batch has the keys x; the programs take m"),
        (lambda x, mask, _: [(x, mask, "label")], TypeError, "x has batches of str; expected tensors"),
        (lambda *_: np.array(["a", "b"]), TypeError, "x is an array of <U1; expected numbers that torch has"),
        (lambda *data: Stream([each[:0] for each in data]), ValueError, "x has no datapoints"),
        (lambda *data: tuple(each[:0] for each in data), ValueError, r"x has shape \[0, 4\]; expected"),
    ],
)
@pytest.mark.parametrize("function", [evidence.importance, evidence.estimate, evidence.check_elbo])
def test_what_cannot_be_taken_is_one_sentence(function, data, error, message):
    with pytest.raises(error, match=message):
        function(model, guide, data(*new_data()))
