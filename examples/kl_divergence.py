"""The Kullback-Leibler divergence of two normals: three ways to compute it, and what its two directions fit.

You learn how a closed form, Monte Carlo and a grid compare, and why variational inference finds a single mode.

Run: python examples/kl_divergence.py (less than a minute; needs SciPy).

You should see that all three agree with the closed form (Kingma & Welling 2013, appendix B). The error of Monte Carlo
falls as 1/sqrt(n). An estimator known as "low variance" (Schulman 2020) fails if q is narrow, as posteriors are. Then
one normal is fitted to two modes: minimizing KL(q || p), as variational inference does, finds one of them; minimizing
KL(p || q) gives the mean and variance of the whole (Bishop 2006, section 10.1.2).
"""

import argparse
import json
import math

import numpy as np
import pyro
import torch
from matplotlib.figure import Figure
from pyro import distributions as dist
from pyro.infer import Trace_ELBO
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor
from torch.distributions import Distribution, constraints, kl_divergence

from pyro_vae import SVI
from pyro_vae.plots import new_figure
from pyro_vae.scripts import count, exit_at_interrupt
from pyro_vae.system.files import writable_folder

torch.set_default_dtype(torch.float64)

P = dist.Normal(0.0, 1.0)
QS = {"near": dist.Normal(0.2, 0.9), "narrow": dist.Normal(0.5, 0.4)}
STEPS = [2.5, 2.25, 2.0, 1.75, 1.5, 1.25, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5]  # in standard deviations of q
FAR = 20.0  # beyond this, all densities here are below 1e-80

MODES, SCALES, WEIGHTS = torch.tensor([-2.0, 2.5]), torch.tensor([0.6, 0.9]), torch.tensor([0.35, 0.65])
TWO_MODES = dist.MixtureSameFamily(dist.Categorical(WEIGHTS), dist.Normal(MODES, SCALES))

Estimates = dict[str, tuple[float, float]]  # values and standard errors, by estimator


def closed_form(q: dist.Normal) -> float:
    """KL(q || N(0, 1)) in nats: Kingma & Welling 2013, appendix B, for one dimension."""
    return (0.5 * (q.loc**2 + q.scale**2 - 1 - 2 * q.scale.log())).item()


def monte_carlo(q: dist.Normal, n: int) -> Estimates:
    """KL(q || p) in nats from n draws of q, by two unbiased estimators.

    With r = p(z) / q(z), the expectation of -log r is the divergence by definition. (r - 1) - log r has the same
    expectation, because the expectation of r is 1. Near r = 1 it is about (r - 1)^2 / 2, so it varies less. But if q
    is narrow, r is very large for rare draws: its variance is infinite for Var q <= Var p / 2.
    """
    z = q.sample((n,))
    log_r = P.log_prob(z) - q.log_prob(z)
    terms = {"log q/p": -log_r, "(r - 1) - log r": torch.expm1(log_r) - log_r}
    return {name: (values.mean().item(), values.std().item() / math.sqrt(n)) for name, values in terms.items()}


def integrate(q: Distribution, p: Distribution, step: float = 1e-3) -> Tensor:
    """KL(q || p) in nats, as a differentiable sum over a grid."""
    z = torch.arange(-FAR, FAR, step)
    log_q = q.log_prob(z)
    return (log_q.exp() * (log_q - p.log_prob(z))).sum() * step


def fit_by_svi(start: float, num_steps: int) -> dist.Normal:
    """Minimizes KL(q || p), which is the negative ELBO of a model without data."""

    def model() -> None:
        pyro.sample("z", TWO_MODES)

    def guide() -> None:
        loc = pyro.param("loc", torch.tensor(start))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        pyro.sample("z", dist.Normal(loc, scale))

    pyro.clear_param_store()
    optimizer = pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.01 ** (1 / num_steps)})
    svi = SVI(model, guide, optimizer, Trace_ELBO(num_particles=1000, vectorize_particles=True, max_plate_nesting=0))
    for _ in range(num_steps):
        svi.step()
    return dist.Normal(pyro.param("loc").detach(), pyro.param("scale").detach())


def fit_by_integration(start: float, is_forward: bool) -> dist.Normal:
    """Minimizes KL(p || q) if ``is_forward``, otherwise KL(q || p), on a grid and so without noise."""
    loc, log_scale = torch.tensor(start, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [loc, log_scale], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        q = dist.Normal(loc, log_scale.exp())
        divergence = integrate(TWO_MODES, q, 0.02) if is_forward else integrate(q, TWO_MODES, 0.02)
        divergence.backward()
        return divergence

    optimizer.step(loss)
    return dist.Normal(loc.detach(), log_scale.exp().detach())


def draw_estimates(sampled: dict[str, dict[int, Estimates]], grid: dict[float, float]) -> Figure:
    figure = new_figure(figsize=(12, 4), layout="constrained")
    *panels, right = figure.subplots(1, 3)
    titles = "Monte Carlo, q near p", "Monte Carlo, q narrow, as posteriors are"
    for axes, title, (name, by_size) in zip(panels, titles, sampled.items(), strict=True):
        sizes, exact = np.array(list(by_size)), closed_form(QS[name])
        for i, estimator in enumerate(by_size[sizes[0]]):
            values, errors = np.array([estimates[estimator] for estimates in by_size.values()]).T
            axes.loglog(sizes, errors, color=f"C{i}", label=f"standard error of the mean of {estimator}")
            axes.loglog(sizes, abs(values - exact), "o", ms=4, color=f"C{i}", label="actual error")
        axes.loglog(sizes, 3 / sizes**0.5, ":", color="black", label="$\\propto 1/\\sqrt{n}$")
        axes.set(xlabel="draws n", ylabel="error of KL(q || p) (nats)", title=title)
        axes.grid(alpha=0.3)
        axes.sharey(panels[0])
    panels[1].legend(loc="lower left", fontsize="small")
    right.semilogy(list(grid), list(grid.values()), "o-", ms=4, color="C2")
    right.set(xlabel="step (standard deviations of q)", ylabel="error (nats)", title="Sum over a grid, q narrow")
    right.grid(alpha=0.3)
    return figure


def draw_fits(reverse: list[dist.Normal], forward: dist.Normal) -> Figure:
    figure = new_figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    z = torch.linspace(-6, 7, 500)
    for axes in (left, right):
        axes.fill_between(z, TWO_MODES.log_prob(z).exp(), color="0.85", label="p, with two modes")
        axes.set_xlabel("z")
    for i, q in enumerate(reverse):
        left.plot(z, q.log_prob(z).exp(), color=f"C{i}", label=f"q: KL(q || p) = {integrate(q, TWO_MODES):.2f} nats")
    right.plot(
        z, forward.log_prob(z).exp(), color="C3", label=f"q: KL(p || q) = {integrate(TWO_MODES, forward):.2f} nats"
    )
    left.set(title="minimum of KL(q || p): one mode, depending on the start", ylabel="density", ylim=(0, 0.75))
    right.set_title("minimum of KL(p || q): mean and variance of p")
    for axes in (left, right):
        axes.legend(loc="upper right")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--num-samples", type=count(100), default=1_000_000, help="number of draws for the largest estimate"
    )
    parser.add_argument("--steps", type=count(10), default=300, help="number of SVI steps for each fit")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--out", default="results/kl_divergence", help="output folder; files in it are overwritten")
    args = parser.parse_args()
    try:
        from scipy.stats import entropy  # a sum over p log(p / q), both normalized

        out = writable_folder(args.out)
    except ImportError:
        parser.error("this example needs scipy: pip install scipy")
    except OSError as error:
        parser.error(str(error))
    torch.manual_seed(args.seed)

    sizes = np.geomspace(100, args.num_samples, 13).round().astype(int).tolist()
    sampled = {name: {n: monte_carlo(q, n) for n in sizes} for name, q in QS.items()}
    exact = {name: {"closed_form": closed_form(q), "torch": kl_divergence(q, P).item()} for name, q in QS.items()}
    slopes: dict[str, dict[str, float]] = {}
    for name, q in QS.items():
        print(f"KL(q || p) in nats, p = N(0, 1), q {name}: N({q.loc.item()}, {q.scale.item()}^2)")
        print("  {closed_form:.12f} in closed form, {torch:.12f} from torch.distributions".format(**exact[name]))
        slopes[name] = {}
        for estimator, (value, error) in sampled[name][sizes[-1]].items():
            errors = [estimates[estimator][1] for estimates in sampled[name].values()]
            slopes[name][estimator] = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
            print(
                f"  {value:.5f} +- {error:.5f} from {sizes[-1]:,} draws, mean of {estimator}; "
                f"its standard error is proportional to n^{slopes[name][estimator]:.2f}"
            )

    q, grid = QS["narrow"], {}
    for step in STEPS:
        z = torch.arange(-FAR, FAR, step * q.scale.item())
        densities = (each.log_prob(z).exp().numpy() for each in (q, P))
        grid[step] = abs(entropy(*densities) - closed_form(q))
    print("scipy.stats.entropy on a grid, q narrow: error for each step size, in standard deviations of q")
    print("  " + ", ".join(f"{error:.0e} at {step}" for step, error in grid.items()))

    reverse = [fit_by_svi(start, args.steps) for start in MODES.tolist()]
    reverse_exact = [fit_by_integration(start, is_forward=False) for start in MODES.tolist()]
    forward = fit_by_integration(0.0, is_forward=True)
    matched = dist.Normal(TWO_MODES.mean, TWO_MODES.stddev)
    fits = {
        "left mode, SVI": reverse[0],
        "left mode, on a grid": reverse_exact[0],
        "right mode, SVI": reverse[1],
        "right mode, on a grid": reverse_exact[1],
        "KL(p || q), on a grid": forward,
        "mean and variance of p": matched,
    }
    table = Table(Column("fit", no_wrap=True), "mean", "scale", "KL(q || p)", "KL(p || q)")
    rows = {}
    for name, q in fits.items():
        divergences = integrate(q, TWO_MODES).item(), integrate(TWO_MODES, q).item()
        rows[name] = dict(
            zip(("loc", "scale", "reverse", "forward"), (q.loc.item(), q.scale.item(), *divergences), strict=True)
        )
        table.add_row(name, *(f"{value:.4f}" for value in rows[name].values()))
    Console().print(table)
    weights = ", ".join(f"{-math.log(weight):.4f}" for weight in WEIGHTS.tolist())
    print(
        f"If the modes were far apart, a fit to one mode would have KL(q || p) = -log(weight of the mode): {weights}."
    )

    metrics = {
        "exact": exact,
        "monte_carlo": sampled,
        "slopes": slopes,
        "grid_errors": grid,
        "fits": rows,
        "settings": vars(args),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2))
    draw_estimates(sampled, grid).savefig(out / "estimates.png", dpi=120)
    draw_fits(reverse, forward).savefig(out / "fits.png", dpi=120)
    print(f"wrote metrics.json, estimates.png and fits.png to {out}/")


if __name__ == "__main__":
    exit_at_interrupt(main)
