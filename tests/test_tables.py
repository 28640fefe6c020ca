"""Data frames as tensors and back: kinds of columns, values that are refused, and what a model makes of a table."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_vae import VAE, evidence, fit, likelihoods, nn, posteriors, priors, weights
from pyro_vae.distributions.positive_scale import positive_scale
from pyro_vae.tables import Table, fill_table

N = 60
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "row": range(N),
        "age": RNG.normal(50, 9, N),
        "income": RNG.lognormal(9, 1, N),
        "visits": RNG.poisson(9, N) + 3,
        "year": RNG.integers(1970, 1983, N),
        "stars": RNG.permutation([1, 2, 3, 4, 5] * (N // 5)),
        "smokes": ["yes", "no"] * (N // 2),
        "colour": ["red", "green", "blue"] * (N // 3),
        "size": pd.Categorical(["small", "middle", "large"] * (N // 3), ["small", "middle", "large"], ordered=True),
        "ill": [True, False] * (N // 2),
        "name": [f"person {i}" for i in range(N)],
        "one": ["same"] * N,
    }
)
EXPECTED = {
    "row": "drop", "age": "real", "income": "positive", "visits": "count", "year": "real", "stars": "ordinal",
    "smokes": "binary", "colour": "categorical", "size": "ordinal", "ill": "binary", "name": "drop", "one": "drop",
}  # fmt: skip
KEPT = [name for name, kind in EXPECTED.items() if kind != "drop"]


def with_gaps(frame):
    frame = frame.copy()
    for i, name in enumerate(KEPT):
        frame[name] = frame[name].astype("boolean" if name == "ill" else frame[name].dtype).mask(np.arange(N) % 7 == i)
    return frame


def test_kinds_are_found():
    assert {column.name: column.kind for column in Table.of(FRAME).columns} == EXPECTED
    assert {column.name: column.kind for column in Table.of(with_gaps(FRAME)).columns} == EXPECTED | {
        "visits": EXPECTED["visits"]
    }


def test_a_kind_can_be_chosen():
    table = Table.of(FRAME, {"age": "positive", "row": "real", "stars": "categorical", "visits": "drop"})
    kinds = {column.name: column.kind for column in table.columns}
    assert [kinds[name] for name in ("age", "row", "stars", "visits")] == ["positive", "real", "categorical", "drop"]


@pytest.mark.parametrize("gaps", [False, True])
def test_a_frame_comes_back_as_it_was(gaps):
    frame = with_gaps(FRAME) if gaps else FRAME
    table = Table.of(frame)
    x = table.tensor(frame)
    assert x.shape == (N, len(KEPT))
    assert x.isnan().any() == gaps
    back = table.frame(x.double())
    pd.testing.assert_frame_equal(back, frame[KEPT], check_dtype=not gaps, rtol=1e-6)


def test_draws_have_the_dtypes_of_the_frame_and_possible_values():
    table = Table.of(FRAME)
    torch.manual_seed(0)
    p = table.likelihood(nn.mlp(2, [], table.num_parameters))
    frame = table.frame(p(torch.randn(500, 2)).sample())
    pd.testing.assert_series_equal(frame.dtypes, FRAME[KEPT].dtypes)
    assert set(frame["colour"]) <= {"red", "green", "blue"}
    assert (frame["income"] > 0).all()
    assert (frame["visits"] >= 0).all()
    assert table.tensor(frame).isfinite().all()


def test_it_is_the_same_after_json():
    table = Table.of(FRAME)
    again = Table.from_json(json.loads(json.dumps(table.to_json())))
    assert torch.equal(again.tensor(FRAME), table.tensor(FRAME))
    assert again.summary() == table.summary()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "number"}, "the kind of column 'age' is 'number'"),
        ({"kind": "categorical"}, "column 'age' has 0 categories; expected at least 2"),
        ({"scale": 0.0}, "the scale of column 'age' is 0.0; expected a positive number"),
        ({"center": float("nan")}, "the center of column 'age' is nan"),
    ],
)
def test_a_description_that_cannot_be_is_refused(change, message):
    content = [each | (change if each["name"] == "age" else {}) for each in Table.of(FRAME).to_json()]
    with pytest.raises(ValueError, match=message):
        Table.from_json(content)


def test_standardized_numbers_have_mean_zero_and_scale_one():
    table = Table.of(FRAME)
    features = table.encoder(torch.nn.Identity())(table.tensor(FRAME).double())
    assert features.shape == (N, table.num_features)
    numbers = features[:, :4]  # age, income, visits, year
    assert torch.allclose(numbers.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(numbers.std(0, correction=0), torch.ones(4, dtype=torch.float64), atol=1e-5)


def test_a_few_different_integers_are_ordered_categories():
    cylinders = pd.DataFrame({"cylinders": [3, 4, 4, 5, 6, 8, 8] * 40})
    column = Table.of(cylinders).kept[0]
    assert (column.kind, column.categories) == ("ordinal", (3, 4, 5, 6, 8))
    random = np.random.default_rng(0)
    large = pd.DataFrame(
        {"pressure": random.normal(180, 30, 90).round(), "reads": random.negative_binomial(0.5, 0.01, 90)}
    )
    assert [column.kind for column in Table.of(large).kept] == ["real", "count"]
    assert Table.of(cylinders[:50]).kept[0].kind != "ordinal"  # too few rows to know that there is no 7


def test_intervals_have_their_probability_with_any_number_of_draws(monkeypatch):
    """If draws and truth are from one distribution, an interval of 80% of 9 draws has the truth in it in 80% of rows."""
    truth, draws = torch.randn(4000, 1), torch.randn(9, 4000, 1)
    frame = pd.DataFrame({"a": [1.5, 2.3, *[None] * 3998]})
    missing = torch.arange(4000)[:, None] > 1
    x = torch.zeros(4000, 1)
    found = evidence.Imputation(
        x=x, std=x, missing=missing, ess=x[:, 0], pareto_k=x[:, 0], doubtful=x[:, 0] > 9, num_samples=9, draws=draws
    )
    monkeypatch.setattr(evidence, "impute", lambda *_, **__: found)
    filled = fill_table(Table.of(frame), lambda x: x, lambda x: x, frame, num_draws=9, probability=0.8)
    ends = [each["a"].to_numpy()[2:] for each in (filled.lower, filled.upper)]
    inside = (ends[0] <= truth[2:, 0].numpy()) & (truth[2:, 0].numpy() <= ends[1])
    assert inside.mean() == pytest.approx(0.8, abs=5 * 0.4 / 4000**0.5)  # 5 standard errors


def test_a_product_of_experts_is_the_exact_posterior_of_a_linear_table_with_any_gaps():
    torch.manual_seed(0)
    frame = pd.DataFrame({"a": 5 + torch.randn(50), "b": torch.randn(50).exp(), "c": 100 * torch.randn(50)})
    table = Table.of(frame, {"b": "positive"})
    assert table.num_parameters == 3  # one location for each column: their scales are shared by all rows
    network = torch.nn.Linear(2, 3)
    likelihood = likelihoods.Incomplete(table.likelihood(network))
    features = table.features()
    posterior = posteriors.ProductOfExperts(features, features.num_features, 2)
    vae = VAE(priors.StandardNormal(2), likelihood, posterior).double()
    scales = torch.stack([(kind.floor + positive_scale(kind.raw)).reshape(1) for kind in likelihood.likelihood.kinds])
    with torch.no_grad():
        posterior.directions.copy_(network.weight / scales)
        posterior.slopes.copy_(network.weight / scales**2)
        posterior.offsets.copy_(-network.bias[:, None] * network.weight / scales**2)
    x = table.tensor(frame).double()
    x[torch.rand(x.shape) < 0.4] = torch.nan
    log_w = weights.log_weights(vae.model, vae.guide, x, num_particles=5)
    assert x.isnan().all(1).any()
    assert torch.allclose(log_w, log_w[:1].expand_as(log_w))  # every log-weight is log p(x)


def other(**values):
    return FRAME.assign(**values)


BAD_FRAMES = {
    "another category": (other(colour=["mauve"] * N), r"column 'colour' \(categorical\) has 60 invalid values: "
                         r"the first is 'mauve' in row 0; expected one of 'blue', 'green', 'red'"),
    "a negative count": (other(visits=[3, -1] * (N // 2)), r"column 'visits' \(count\) .*the first is -1 in row 1; expected a count"),
    "half a count": (other(visits=[3.0, 2.5] * (N // 2)), r"'visits'.*2.5 in row 1"),
    "infinity": (other(age=[np.inf] * N), r"'age' \(real\).*expected a finite number"),
    "zero income": (other(income=[0.0] * N), r"'income' \(positive\).*expected a positive number"),
    "words": (other(age=["old"] * N), r"'age' \(real\).*the first is 'old' in row 0; expected a number"),
    "a column less": (FRAME.drop(columns="age"), r"has no column 'age'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_values_that_a_column_cannot_have_are_refused(name):
    frame, message = BAD_FRAMES[name]
    with pytest.raises(ValueError, match=message):
        Table.of(FRAME).tensor(frame)


BAD_TABLES = {
    "a text": (pd.DataFrame({"a": [f"text {i // 2}" for i in range(200)]}), {}, "column 'a' has 100 different words, so it may be"),
    "nothing but gaps": (other(age=[None] * N), {}, "column 'age' has no values: all are missing"),
    "dates": (other(age=pd.date_range("2020", periods=N)), {}, "column 'age' has dates"),
    "an unknown kind": (FRAME, {"age": "number"}, "the kind of column 'age' is 'number'; expected one of 'real'"),
    "an unknown column": (FRAME, {"wage": "real"}, "kinds has the column 'wage'; the table has row, age"),
    "three values, binary": (FRAME, {"colour": "binary"}, "column 'colour' has 3 different values; a binary column has two"),
    "words as numbers": (FRAME, {"colour": "real"}, r"column 'colour' \(real\) has 60 invalid values.*'red' in row 0; expected a number"),
    "negative as positive": (FRAME.assign(age=-1.0), {"age": "positive"}, "expected a positive number"),
    "no rows": (FRAME[:0], {}, "frame has 0 rows"),
    "two of one name": (pd.concat([FRAME["age"], FRAME["age"]], axis=1), {}, "two columns with the name 'age'"),
    "nothing left": (FRAME[["one"]], {}, "no column of the table is left"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TABLES)
def test_tables_that_cannot_be_are_refused(name):
    frame, kinds, message = BAD_TABLES[name]
    with pytest.raises(ValueError, match=message):
        Table.of(frame, kinds)


def test_something_else_than_a_frame_is_refused():
    with pytest.raises(TypeError, match=r"frame is of type ndarray; expected a pandas.DataFrame or a polars.DataFrame"):
        Table.of(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"x has shape \[3, 2\]; expected \[n, 9\]"):
        Table.of(FRAME).frame(torch.zeros(3, 2))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-1000, 1000), st.floats(-1e6, 1e6)), min_size=2, max_size=30))
def test_any_column_of_numbers_is_refused_or_comes_back(values):
    frame = pd.DataFrame({"a": pd.Series(values, dtype="float64"), "b": range(len(values))})
    try:
        table = Table.of(frame, {"b": "real"})
    except ValueError:
        assert frame["a"].isna().all()
        return
    x = table.tensor(frame).double()
    if len(table.kept) == 2:
        back = table.frame(x)["a"].astype("float64")
        assert np.allclose(back, frame["a"], rtol=1e-6, equal_nan=True)


def test_a_model_of_a_table_fills_gaps_and_makes_a_table():
    """Two columns that follow a third: what is missing is filled in better than by the mean of its column."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=400)
    frame = pd.DataFrame(
        {
            "length": 100 + 20 * z + rng.normal(size=400),
            "weight": np.exp(3 + 0.5 * z + 0.05 * rng.normal(size=400)),
            "kind": np.where(z + 0.3 * rng.normal(size=400) > 0, "large", "small"),
        }
    )
    gaps = frame.copy()
    gaps.loc[rng.random(400) < 0.2, "length"] = np.nan
    table = Table.of(gaps)
    x = table.tensor(gaps)
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Incomplete(table.likelihood(nn.mlp(2, [32], table.num_parameters))),
        posteriors.Normal(table.encoder(nn.mlp(table.num_features, [32], 4))),
    )
    fit(vae, x, epochs=60, batch_size=50, lr=5e-3, seed=0, progress=False)
    filled = evidence.impute(vae.model, vae.guide, x[:60], num_samples=50, progress=False)
    filled = filled if isinstance(filled, torch.Tensor) else filled.x
    missing = gaps["length"][:60].isna().to_numpy()
    error = table.frame(filled)["length"][missing] - frame["length"][:60][missing]
    assert np.sqrt((error**2).mean()) < 0.5 * frame["length"].std()
    pd.testing.assert_series_equal(table.frame(vae.sample(10)).dtypes, frame.dtypes)
