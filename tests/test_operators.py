"""Operators that replace those of ONNX are as accurate as torch's."""

import pytest
import torch

from pyro_vae.exporting.operators import IN_FLOAT64, REPLACEMENTS

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
