"""How often the error bars of log p(x) cover the truth, on log-weights whose log-mean is known to be zero.

Prints a table: of each problem and number of samples, the fraction of samples whose error is known; how often the
intervals cover, over all samples and over those with a known error; how often the interval of a mean over 10, 100 and
2000 of them covers (it does where any of them is infinite); and the median error divided by the RMS error.

    python benchmarks/error_bars.py > benchmarks/results/error_bars.md
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_vae.evidence.results.running_weights import RunningWeights

Draw = Callable[[int, int], Tensor]
ROWS = 4000
GROUPS = 400


def chi2(dims: int, *shape: int) -> Tensor:
    return 2 * torch.distributions.Gamma(torch.tensor(dims / 2, dtype=torch.float64), 1.0).sample(shape)


def normal(dims: int, width: float) -> Draw:
    return lambda s, n: dims * math.log(width) + (1 - width**2) * chi2(dims, s, n) / 2


def shifted(dims: int, width: float, shift: float) -> Draw:
    def draw(s: int, n: int) -> Tensor:
        e = torch.randn(s, n, dtype=torch.float64)
        first = math.log(width) + e.square() / 2 - (shift + width * e).square() / 2
        return first if dims == 1 else first + normal(dims - 1, width)(s, n)

    return draw


def mixed(dims: int, width: float, others: float) -> Draw:
    return lambda s, n: normal(1, width)(s, n) + normal(dims - 1, others)(s, n)


def student(dims: int, degrees: float, width: float = 1.0) -> Draw:
    half = (degrees + dims) / 2
    constant = math.lgamma(half) - math.lgamma(degrees / 2) + dims / 2 * math.log(2 / degrees) + dims * math.log(width)

    def draw(s: int, n: int) -> Tensor:
        squares = chi2(dims, s, n)
        return constant - half * torch.log1p(width**2 * squares / degrees) + squares / 2

    return draw


def log_gamma(dims: int, a: float) -> Draw:
    width = 1.05 / math.sqrt(a)

    def one(s: int, n: int) -> Tensor:
        e = torch.randn(s, n, dtype=torch.float64)
        z = math.log(a) + width * e
        return a * z - z.exp() - math.lgamma(a) + 0.5 * math.log(2 * math.pi) + math.log(width) + e.square() / 2

    return lambda s, n: torch.stack([one(s, n) for _ in range(dims)]).sum(0)


def log_normal(variance: float) -> Draw:
    return lambda s, n: -variance / 2 + math.sqrt(variance) * torch.randn(s, n, dtype=torch.float64)


def left_skewed(shape: float, variance: float) -> Draw:
    scale = math.sqrt(variance / shape)
    gamma = torch.distributions.Gamma(torch.tensor(shape, dtype=torch.float64), 1.0)
    return lambda s, n: shape * math.log1p(scale) - scale * gamma.sample((s, n))


PROPOSALS: dict[str, Draw] = {
    **{
        f"q too narrow: {dims} dimensions, width {width}": normal(dims, width)
        for dims, widths in ((1, (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)), (5, (0.5, 0.6, 0.7, 0.8, 0.9)))
        for width in widths
    },
    **{
        f"q too narrow: {dims} dimensions, width {width}": normal(dims, width)
        for dims, widths in ((20, (0.7, 0.8, 0.85, 0.9, 0.95)), (50, (0.8, 0.85, 0.9, 0.95)))
        for width in widths
    },
    "q too narrow in 1 of 50 dimensions, width 0.5, else 1.05": mixed(50, 0.5, 1.05),
    **{f"q too wide: {d} dimensions, width {w}": normal(d, w) for d, w in ((1, 2.0), (5, 1.5), (20, 1.2), (50, 1.2))},
    **{
        f"q shifted by {shift}, width {w}, {d} dimensions": shifted(d, w, shift)
        for d, w, shift in ((1, 0.8, 0.5), (1, 0.7, 1.0), (5, 0.8, 0.5), (20, 1.1, 1.5))
    },
    **{
        f"posterior t with {nu} degrees, {d} dimensions, q of width {w}": student(d, nu, w)
        for d, nu, w in ((1, 3, 1.0), (1, 5, 1.0), (1, 30, 1.0), (5, 5, 1.0), (20, 30, 1.0), (1, 5, 1.3), (5, 5, 1.5))
    },
    **{f"posterior log-Gamma({a}), {d} dimensions": log_gamma(d, a) for d, a in ((1, 1.0), (1, 3.0), (5, 3.0))},
}
CHAINS: dict[str, Draw] = {
    **{f"log-weights normal, variance {v}": log_normal(v) for v in (0.01, 0.1, 0.3, 1.0, 2.4, 5.0, 10.0, 20.0)},
    **{
        f"log-weights minus Gamma({a}), variance {v}": left_skewed(a, v)
        for a in (1.0, 4.0)
        for v in (0.01, 0.1, 1.0, 5.0, 20.0)
    },
}


def row(name: str, count: int, draw: Draw) -> str:
    parts = []
    for _ in range(ROWS // 1000):
        running = RunningWeights(1000, count)
        running.update(draw(count, 1000))
        columns = running.columns()
        parts.append(torch.stack([columns["log_prob"], columns["error"], columns["bias"]]))
    estimate, error, bias = torch.cat(parts, 1)
    known = error.isfinite()
    inside = (estimate.abs() <= error).double()
    means = []
    for n in (10, 100, 2000):
        chosen = torch.randint(ROWS, (GROUPS, n))
        half = bias[chosen].mean(1) + (error - bias)[chosen].square().sum(1).sqrt() / n
        means.append((estimate[chosen].mean(1).abs() <= half.nan_to_num(torch.inf)).double().mean().item())
    of_known, width = "", ""
    if known.double().mean() > 0.01:
        of_known = f"{inside[known].mean():.3f}"
        width = f"{error[known].median() / estimate.square().mean().sqrt():.1f}"
    figures = [f"{known.double().mean():.3f}", f"{inside.mean():.3f}", of_known, *(f"{mean:.3f}" for mean in means)]
    return " | ".join(["", name, str(count), *figures, width, ""]).strip()


def main() -> None:
    torch.manual_seed(1)
    torch.set_num_threads(1)
    print("# Coverage of the 95% error bars of log p(x)\n")
    print(f"{ROWS} samples each, of which none is left out. Made by `benchmarks/error_bars.py`.\n")
    print("| problem | samples | error known | covers | where known | mean of 10 | of 100 | of 2000 | median / RMS |")
    print("|---|---|---|---|---|---|---|---|---|")
    for problems, counts in ((PROPOSALS, (50, 100, 200, 500, 2000)), (CHAINS, (2, 5, 10, 32, 100, 500))):
        for name, draw in problems.items():
            for count in counts:
                print(row(name, count, draw), flush=True)


if __name__ == "__main__":
    main()
