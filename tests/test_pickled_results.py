"""Results of evidence without their model: pickled ones are small, whatever the model is; and what they show."""

from __future__ import annotations

import copy
import pickle
import re

import pyro
import pytest
import torch
from pyro import distributions as dist

from pyro_vae import evidence, likelihoods
from pyro_vae.evidence.results.certificate import Certificate
from pyro_vae.html_table import html_table

N, SIZE = 10, 4000
SMALL = 40_000  # bytes; x has four times as many
QUIET = {"progress": False}
PATH = {"num_chains": 4, "num_temperatures": 2, "num_leapfrog": 1, **QUIET}


def new_programs():
    """They cannot be pickled."""
    scale = lambda: 40.0  # noqa: E731

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            fn = likelihoods.Incomplete(lambda z: dist.Normal(z[..., None].expand(*z.shape, SIZE), scale()).to_event(1))
            pyro.sample("x", fn(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.nan_to_num().mean(1) / 2, scale() / 40))

    return model, guide


CALLS = {
    "estimate": lambda *of: evidence.estimate(*of, certify=3, **QUIET),
    "importance": lambda *of: evidence.importance(*of, num_samples=50, **QUIET),
    "annealed": lambda *of: evidence.annealed(*of, **PATH),
    "sandwich": lambda *of: evidence.sandwich(*of, **PATH),
    "impute": lambda *of: evidence.impute(*of, num_samples=20, **QUIET),
    "compare": lambda *of: evidence.compare(*(evidence.importance(*of, num_samples=k, **QUIET) for k in (40, 60))),
}
DATA = {"sandwich": 1, "impute": 3}  # tensors like x that belong to the result


@pytest.mark.parametrize("name", CALLS)
def test_a_pickled_result_has_no_model_and_no_data(name):
    model, guide = new_programs()
    x = 40 * torch.randn(N, SIZE)
    x[:, 0] = torch.nan
    with pytest.raises((pickle.PicklingError, AttributeError), match="local object"):
        pickle.dumps(model)
    result = CALLS[name](model, guide, x)
    data = pickle.dumps(result)
    assert len(data) < SMALL + DATA.get(name, 0) * x.nbytes
    again = pickle.loads(data)
    for field, value in vars(result).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(getattr(again, field), value, rtol=0, atol=0, equal_nan=True)
    assert again.summary() == result.summary()
    if isinstance(result, evidence.Evidence):
        for without in (again, copy.deepcopy(result)):
            with pytest.raises(
                ValueError, match=r"^this result does not have its programs; call evidence.to_arviz\(mod"
            ):
                without.to_arviz()
        assert result.draw is not None or name == "annealed"  # which the original still has


def test_a_result_given_draws_of_global_latents_has_no_model_either():
    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + w, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.8))

    result = evidence.estimate(model, guide, torch.randn(N), given={"w": torch.zeros(20)}, **QUIET)
    data = pickle.dumps(result)
    assert len(data) < 200 * 20 * 16 + SMALL  # each draw has its own numbers, and no copy of those of the others
    assert torch.equal(pickle.loads(data).given[7].log_prob, result.given[7].log_prob)


def test_html_is_escaped():
    assert html_table({"<b>": "a & b", 'say "x"': "> 1"}) == (
        "<table><tr><th>&lt;b&gt;</th><td>a &amp; b</td></tr><tr><th>say &quot;x&quot;</th><td>&gt; 1</td></tr></table>"
    )
    unsettled = evidence.Evidence(*[torch.full((2,), torch.inf, dtype=torch.float64)] * 8, num_samples=5)
    assert "<td>&gt;= " in unsettled._repr_html_()


def imputation(std):
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    missing = torch.tensor([[True, False, False], [False, False, False], [True, True, False]])
    k = torch.tensor([0.3, torch.inf, torch.inf], dtype=torch.float64)
    doubtful = torch.tensor([False, False, True])
    ess = torch.tensor([50.0, 1.0, 70.0], dtype=torch.float64)
    return evidence.Imputation(x, std * missing, missing, ess, k, doubtful, num_samples=100)


def test_an_imputation_speaks_of_what_was_missing():
    words = str(imputation(torch.tensor([0.5, 2.0, 1.0])))
    assert "filled in 3 values of 2 of 3 datapoints, from 100 posterior draws each" in words
    assert "median 0.5, largest 2" in words
    assert "effective sample size: median 50.0, least 50.0" in words  # without that of the complete datapoint
    assert "at most 0.30, not known for 1 datapoint\n" in words
    assert "WARNING: for 1 datapoint, the draws may not be" in words
    assert "Imputation(n=3, incomplete=2, values=3, doubtful=1" in repr(imputation(torch.ones(3)))


def lines_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_pictures_have_every_datapoint():
    """And those without a known error are drawn as another kind of point."""
    log_prob = torch.tensor([-3.0, -1.0, -2.0], dtype=torch.float64)
    error = torch.tensor([0.1, torch.inf, 0.2], dtype=torch.float64)
    nothing = torch.zeros_like(error)
    result = evidence.Evidence(log_prob, error, nothing, nothing, nothing, nothing, log_prob, log_prob, 9)
    above, middle, below = result.plot().axes
    known, unknown = ([line.get_ydata().tolist() for line in above.lines][i] for i in (0, -1))
    assert (known, unknown) == ([-3.0, -2.0], [-1.0])
    assert len(lines_of(above)) == 2
    assert middle.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.2])
    assert below.lines[0].get_ydata().tolist() == [0.0] * 3
    bounds = (
        Certificate(log_prob, log_prob + torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), error).plot().axes[0]
    )
    assert sorted(line.get_ydata().tolist() for line in bounds.lines) == sorted([[-3, -2, -1], [-2.5, -1.75, -0.75]])
    difference = evidence.compare(result, result).plot().axes[0]
    assert difference.lines[0].get_ydata().tolist() == [0.0, 0.0]
    worst = result.plot_worst(torch.rand(3, 1, 4, 4), count=2)
    assert [axes.get_title() for axes in worst.axes] == ["0: -3.0", "2: -2.0"]
    assert [axes.get_title() for axes in result.plot_worst(torch.rand(3, 4, 4)).axes][-1] == "1: >= -1.0"
    with pytest.raises(ValueError, match=re.escape("images have shape [2, 4]; expected [n, 1 or 3, height, width]")):
        result.plot_worst(torch.rand(3, 4), count=2)
    with pytest.raises(ValueError, match="x has 2 datapoints; expected the 3 of this result"):
        result.plot_worst(torch.rand(2, 4, 4))
