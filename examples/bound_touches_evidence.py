"""The ELBO equals log p(x) where q is the exact posterior, and is lower elsewhere (Kingma & Welling 2013, equation 1).

You learn that the gap between -ELBO and -log p(x) is KL(q || p(z | x)), and that bounds with more particles are
tighter.

Run: python examples/bound_touches_evidence.py (less than a minute).

You should see that at theta_0 both curves have the same value and slope, that elsewhere the gap is the KL divergence
up to rounding, and the order ELBO <= IWAE-5 <= IWAE-50 <= log p(x) <= CUBO. The model is p(z) = N(0, 1), p(x | z) =
N(theta z, 0.5^2), for which everything is known in closed form. The guide is the exact posterior at theta_0, and stays
fixed while theta changes.
"""

import argparse
import json
import math

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pyro_vae import VAE, likelihoods, posteriors, priors
from pyro_vae.infer.losses import CUBO, ELBO, IWAE
from pyro_vae.plots import new_figure
from pyro_vae.scripts import count, exit_at_interrupt
from pyro_vae.system.files import writable_folder
from pyro_vae.weights import find_layout, terms_at

NOISE = 0.5
TOUCH = (0.5, 1.0, 2.0)  # values of theta_0
AWAY = (1.0, 1.6)  # theta_0 of the guide, and the theta where bounds are compared


def build(theta: float) -> VAE:
    """The model, with its exact posterior."""
    likelihood = likelihoods.Normal(torch.nn.Linear(1, 1), NOISE).double()
    torch.nn.init.constant_(likelihood.network.weight, theta)
    torch.nn.init.zeros_(likelihood.network.bias)
    return VAE(priors.StandardNormal(1).double(), likelihood, posteriors.LinearGaussian(likelihood, 1))


def negative_elbo(vae: VAE, fixed: VAE, x: Tensor) -> Tensor:
    """The exact mean over x of -ELBO, for the model of one VAE and the posterior of another."""
    q = fixed.posterior(x)
    # The log-weights are quadratic in z. So their mean under q is the mean of their values at one standard deviation
    # above and below the mean of q, without sampling.
    z = torch.stack([q.mean - q.stddev, q.mean + q.stddev])
    layout = find_layout(vae.model, fixed.guide, x)
    return -terms_at(vae.model, fixed.guide, x, {"z": z}, 2, layout).log_weights.mean()


def negative_log_evidence(theta: Tensor, x: Tensor) -> Tensor:
    """The mean over x of -log p(x), in closed form."""
    return -Normal(0.0, (theta**2 + NOISE**2).sqrt()).log_prob(x).mean()


def touch(theta: float, x: Tensor) -> dict[str, float]:
    """-ELBO and -log p(x) at theta_0, and their slopes."""
    vae = build(theta)
    weight = vae.likelihood.network.weight
    bound, evidence = negative_elbo(vae, build(theta), x), negative_log_evidence(weight, x)
    slopes = [torch.autograd.grad(value, weight)[0].item() for value in (bound, evidence)]
    return {"bound": bound.item(), "evidence": evidence.item(), "bound_slope": slopes[0], "evidence_slope": slopes[1]}


@torch.no_grad()
def curve(theta_0: float, thetas: Tensor, x: Tensor) -> dict[str, Tensor]:
    """-ELBO along theta, and KL(q || p(z | x)) there."""
    fixed = build(theta_0)
    bounds, divergences = [], []
    for theta in thetas.tolist():
        vae = build(theta)
        bounds.append(negative_elbo(vae, fixed, x))
        divergences.append(kl_divergence(fixed.posterior(x), vae.posterior(x)).mean())
    return {"bound": torch.stack(bounds), "kl": torch.stack(divergences)}


@torch.no_grad()
def bounds(x: Tensor, repeats: int) -> dict[str, tuple[float, float]]:
    """Estimates of log p(x) from below and above, and their standard errors; the mean over x."""
    theta_0, theta = AWAY
    model, guide = build(theta).model, build(theta_0).guide
    results = {}
    for name, loss in (("ELBO", ELBO()), ("IWAE-5", IWAE(5)), ("IWAE-50", IWAE(50)), ("CUBO", CUBO(200))):
        values = torch.stack([loss(model, guide, x) for _ in range(repeats)]) / len(x)
        values = values if name == "CUBO" else -values  # losses are negative lower bounds, or an upper bound
        results[name] = values.mean().item(), values.std().item() / math.sqrt(repeats)
    return results


def draw(
    thetas: Tensor,
    evidence: Tensor,
    curves: dict[float, dict[str, Tensor]],
    touching: dict[float, dict[str, float]],
    exact: float,
    table: dict[str, tuple[float, float]],
) -> Figure:
    figure = new_figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    left.plot(thetas, evidence, color="black", linewidth=2.5, label="$-\\log p_\\theta(x)$")
    for number, (theta_0, values) in enumerate(curves.items()):
        left.plot(thetas, values["bound"], color=f"C{number}", label=f"$-$ELBO, q exact at $\\theta_0 = {theta_0}$")
        left.plot(theta_0, touching[theta_0]["evidence"], "o", color=f"C{number}")
    least = evidence.min().item()
    left.set(xlabel=r"$\theta$", ylabel="nats per datapoint", ylim=(least - 0.7, least + 1.4))
    left.set_title("-ELBO touches -log p(x) where q is the posterior")
    left.legend(loc="lower right")
    names = list(table)
    values, errors = zip(*table.values(), strict=True)
    right.axhline(exact, color="black", linewidth=2.5, label=r"$\log p_\theta(x)$, exact")
    right.errorbar(range(len(names)), values, [4 * error for error in errors], fmt="o", capsize=5, color="C3")
    right.set_xticks(range(len(names)), names)
    right.set(ylabel="nats per datapoint", xlim=(-0.5, len(names) - 0.5))
    right.set_title("elsewhere, more particles: tighter bounds")
    right.legend(loc="lower right", title=f"at $\\theta = {AWAY[1]}$, q exact at $\\theta_0 = {AWAY[0]}$; bars: 4 s.e.")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--points", type=count(2), default=91, help="number of values of theta")
    parser.add_argument("--repeats", type=count(2), default=300, help="number of estimates of each bound")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument(
        "--out", default="results/bound_touches_evidence", help="output folder; files in it are overwritten"
    )
    args = parser.parse_args()
    try:
        out = writable_folder(args.out)
    except OSError as error:
        parser.error(str(error))
    torch.set_num_threads(1)  # more threads do not help with small tensors
    torch.manual_seed(args.seed)
    x = Normal(0.0, math.sqrt(1 + NOISE**2)).sample((30, 1)).double()

    touching = {theta: touch(theta, x) for theta in TOUCH}
    for theta, at in touching.items():
        print(
            f"theta_0 = {theta}: -ELBO {at['bound']:.6f}, -log p(x) {at['evidence']:.6f}, "
            f"slopes {at['bound_slope']:+.6f} and {at['evidence_slope']:+.6f}"
        )
    thetas = torch.linspace(0.1, 3.0, args.points, dtype=torch.float64)
    curves = {theta: curve(theta, thetas, x) for theta in TOUCH}
    evidence = torch.stack([negative_log_evidence(theta, x) for theta in thetas])
    gap_error = max((values["bound"] - evidence - values["kl"]).abs().max().item() for values in curves.values())
    lowest_gap = min((values["bound"] - evidence).min().item() for values in curves.values())
    print(
        f"-ELBO + log p(x) equals KL(q || p(z | x)) at all {args.points} thetas; they differ by at most {gap_error:.1e}"
    )
    table = bounds(x, args.repeats)
    exact = -negative_log_evidence(torch.tensor(AWAY[1]), x).item()
    print(f"at theta = {AWAY[1]}, with q exact at {AWAY[0]}: log p(x) = {exact:.4f} nats per datapoint. Bounds:")
    for name, (value, std_error) in table.items():
        print(f"  {name:<8}{value:9.4f} +- {std_error:.4f}")
    metrics = {
        "touch": touching, "gap_minus_kl": gap_error, "lowest_gap": lowest_gap, "log_px": exact, "bounds": table,
        "settings": vars(args),
    }  # fmt: skip
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2))
    draw(thetas, evidence, curves, touching, exact, table).savefig(out / "bound_touches_evidence.png", dpi=150)
    print(f"wrote metrics.json and bound_touches_evidence.png to {out}/")


if __name__ == "__main__":
    exit_at_interrupt(main)
