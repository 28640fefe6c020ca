"""One datapoint, two, ten: every function of evidence gives numbers, or says that so few cannot tell."""

from __future__ import annotations

import re
import warnings
from itertools import product

import pyro
import pytest
import torch
from pyro import distributions as dist

from pyro_vae import VAE, evidence, likelihoods, nn, posteriors, priors
from pyro_vae.evidence.results.certificate import Certificate

SIZE = 4


def one_site(dtype, incomplete=False):
    likelihood = likelihoods.Normal(nn.mlp(2, [6], SIZE), 1.0)
    network = nn.mlp(SIZE, [6], 4)
    if incomplete:
        likelihood, network = likelihoods.Incomplete(likelihood), nn.FillMissing(network)
    vae = VAE(priors.StandardNormal(2), likelihood, posteriors.Normal(network)).to(dtype)
    x = torch.randn(10, SIZE, dtype=dtype)
    return vae.model, vae.guide, x.masked_fill(x > 0.8, torch.nan) if incomplete else x


def several_sites(dtype):
    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(2, dtype=dtype), 1.0).to_event(1))
            b = pyro.sample("b", dist.Gamma(torch.tensor(2.0, dtype=dtype), 1.0))
            pyro.sample("x", dist.Normal(torch.cat([a, a], -1) + b[..., None], 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(0.4 * x[:, :2], 0.7).to_event(1))
            pyro.sample("b", dist.Gamma(2 + 0 * x[:, 0], 1.5))

    return model, guide, torch.randn(10, SIZE, dtype=dtype)


PROGRAMS = {
    "one site": one_site,
    "missing values": lambda dtype: one_site(dtype, incomplete=True),
    "several sites": several_sites,
}
PATH = {"num_chains": 30, "num_temperatures": 3, "num_leapfrog": 2}
CALLS = {
    "estimate": lambda *of: evidence.estimate(*of, max_temperatures=8, certify=len(of[2])),
    "importance": lambda *of: evidence.importance(*of, num_samples=50),
    "annealed": lambda *of: evidence.annealed(*of, **PATH),
    "inference_gap": lambda *of: evidence.inference_gap(
        *of, log_prob=torch.zeros(len(of[2])), num_samples=10, num_steps=5, max_rounds=2
    ),
    "decompose_elbo": evidence.decompose_elbo,
    "impute": lambda *of: evidence.impute(*of, num_samples=10),
    "to_arviz": lambda *of: evidence.to_arviz(*of, 16, proposal=evidence.defensive(0.1)),
    "compare": lambda *of: evidence.compare(*(evidence.importance(*of, num_samples=k) for k in (40, 60))),
}
SLOW = ("estimate", "annealed", "impute")  # one kind of program for each n


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("n", [1, 2, 10])
def test_numbers_or_a_sentence(name, n):
    """Without a warning, such as torch's of degrees of freedom, and without a word of NaN or infinity."""
    cases = list(product((torch.float32, torch.float64), PROGRAMS.values()))
    for dtype, make in [cases[n % 5]] if name in SLOW else cases:
        model, guide, x = make(dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "for . of . datapoints, the draws may not be from the posterior")
            result = CALLS[name](model, guide, x[:n])
        if isinstance(result, torch.Tensor):
            assert result.isfinite().all()
            continue
        words = [result.summary()] if hasattr(result, "summary") else []
        words += [result._repr_html_()] if words and hasattr(result, "_repr_html_") else []
        for each in words:
            assert not re.search(r"\b(nan|inf)\b", each), each
        for field in ("log_prob", "best_elbo", "rate", "reconstruction", "mutual_information", "difference"):
            if hasattr(result, field):
                assert torch.as_tensor(getattr(result, field)).isfinite().all(), field


def test_a_certificate_of_one_datapoint_has_no_error():
    values = torch.zeros(1)
    one = Certificate(values, values + 0.2, values)
    assert "on one datapoint" in one.summary()
    assert "within 0.200 nats: its error is not known from one datapoint" in one.summary()
    assert "inf" not in one.summary()


def test_a_certificate_of_two_datapoints_has_the_error_of_two():
    """Student's 95% quantile is 12.7, where the normal one is 2."""
    two = Certificate(torch.zeros(2), torch.tensor([0.1, 0.3]), torch.zeros(2))
    assert "on 2 datapoints" in two.summary()
    assert "within 0.200 +- 1.271 nats" in two.summary()
