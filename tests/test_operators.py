"""Operators that replace those of ONNX are as accurate as torch's."""

import pytest
import torch

from pyro_vae.exporting.operators import IN_FLOAT64, OF_MASKS, REPLACEMENTS

aten = torch.ops.aten
TINY = torch.cat(
    [-torch.logspace(-12, -1, 40, dtype=torch.float64).flip(0), torch.logspace(-12, 0, 40, dtype=torch.float64)]
)
REALS = torch.cat([torch.linspace(-200, 200, 401, dtype=torch.float64), TINY])
REPLACED = {**REPLACEMENTS, **IN_FLOAT64}
ARGUMENTS = {
    aten.log1p.default: (torch.cat([TINY, torch.logspace(0, 30, 50, dtype=torch.float64)]),),
    aten.expm1.default: (torch.cat([TINY, torch.linspace(-90, 80, 171, dtype=torch.float64)]),),
    aten.log_sigmoid.default: (REALS,),
    aten.lgamma.default: (torch.logspace(-8, 8, 200, dtype=torch.float64),),
    aten.logaddexp.default: (REALS, REALS.flip(0) / 3),
    aten.hypot.default: (REALS, REALS.flip(0)),
    aten.softplus.default: (REALS,),
    aten.silu.default: (REALS,),
}


@pytest.mark.parametrize("operator", ARGUMENTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_as_accurate_as_the_operator(operator, dtype):
    arguments = [each.to(dtype) for each in ARGUMENTS[operator]]
    exact = operator(*(each.double() for each in arguments))
    error = (REPLACED[operator](*arguments).double() - exact).abs()
    limits = torch.finfo(dtype)
    # The log-gamma function is zero at 1 and 2, near which its error is absolute.
    size = exact.abs() + (2.0 if operator is aten.lgamma.default else 0.0)
    assert (error <= 40 * limits.eps * size + limits.tiny).all()


@pytest.mark.parametrize(
    "operator", [aten.log1p.default, aten.logaddexp.default, aten.log_sigmoid.default, aten.lgamma.default], ids=str
)
def test_infinities(operator):
    inf = torch.tensor([torch.inf])
    arguments = [inf, -inf] if operator is aten.logaddexp.default else [inf]
    assert torch.equal(REPLACED[operator](*arguments), operator(*arguments))


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("unitriangular", [False, True])
def test_triangular_systems(upper, left, unitriangular):
    a = torch.randn(2, 1, 4, 4, dtype=torch.float64) + 3 * torch.eye(4, dtype=torch.float64)
    a = a.triu() if upper else a.tril()
    b = torch.randn(3, 4, 5, dtype=torch.float64) if left else torch.randn(3, 5, 4, dtype=torch.float64)
    options = {"upper": upper, "left": left, "unitriangular": unitriangular}
    torch.testing.assert_close(
        REPLACEMENTS[aten.linalg_solve_triangular.default](a, b, **options),
        torch.linalg.solve_triangular(a, b, **options),
    )


def test_cholesky_factors():
    a = torch.randn(2, 5, 5, dtype=torch.float64)
    a = a @ a.mT + 0.1 * torch.eye(5, dtype=torch.float64)
    for upper in (False, True):
        found = REPLACEMENTS[aten.linalg_cholesky_ex.default](a, upper=upper)[0]
        torch.testing.assert_close(found, torch.linalg.cholesky(a, upper=upper))


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (3, 3), (2, 5), (5, 2)], ids=str)
@pytest.mark.parametrize("offset", range(-6, 7))
def test_indices_of_a_triangle(size, offset):
    found = REPLACEMENTS[aten.tril_indices.default](*size, offset, device="cpu", pin_memory=False)
    expected = torch.tril_indices(*size, offset)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("others", [(), (5,), (2, 5)], ids=str)
@pytest.mark.parametrize("count", [1, 2])
def test_values_put_at_indices(others, count, accumulate):
    x, values = torch.randn(*others, *(3, 4)[:count]), torch.randn(*others, 3)
    indices = [None] * len(others) + [torch.tensor([0, -1, 2]), torch.tensor([3, -4, 1])][:count]
    for each in (values, values[..., :1]):
        found = REPLACEMENTS[aten.index_put.default](x, indices, each, accumulate)
        if len(indices) == 1:
            assert found is NotImplemented  # which is the operator itself
        else:
            expected = aten.index_put.default(x, indices, each, accumulate)
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_other_indices_are_left_to_the_operator():
    x = torch.zeros(3, 4, 5)
    i, mask = torch.tensor([0, 1]), torch.tensor([True, False, True])
    for indices in ([i], [i, i], [i, None, i], [i, i, None], [mask, i, i], [i[None], i, i]):
        assert REPLACEMENTS[aten.index_put.default](x, indices, torch.ones(2)) is NotImplemented


def test_products_of_masks():
    mask, x = torch.tensor([True, False]), torch.tensor([3.0, torch.inf])
    product = OF_MASKS[aten.mul.Tensor]
    for a, b in ((mask, x), (x, mask), (mask, x.long())):
        torch.testing.assert_close(product(a, b), a * b, rtol=0, atol=0, equal_nan=True)
    for a, b in ((mask, mask), (x, x), (x, 2.0), (x, x.double())):
        assert product(a, b) is NotImplemented
