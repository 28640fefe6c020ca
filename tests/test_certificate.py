"""What a certificate says of one datapoint, and of two."""

from __future__ import annotations

import torch

from pyro_vae.evidence.results.certificate import Certificate


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
