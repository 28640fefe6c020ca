"""Compare estimators of the gradient for the guide: they have the same mean, but very different variances.

You learn why VAEs use the reparameterized gradient, and what more particles do to it.

Run: python examples/gradient_variance.py (less than a minute).

You should see that the score-function gradient of an MNIST VAE has thousands of times the variance of the
reparameterized one (Kingma & Welling 2013, section 2.2; Rezende et al. 2014), and that an analytic KL term reduces the
variance further. The path derivative (Roeder et al. 2017) has no variance where q is the posterior. More particles
bury the gradient of an importance-weighted bound in noise (Rainforth et al. 2018), unless it is doubly reparameterized
(Tucker et al. 2018) and the guide is close to the posterior. On a linear model the exact gradient is known, and all
estimators agree with it.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from matplotlib.figure import Figure
from pyro.infer import TraceMeanField_ELBO
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from pyro_vae import SVI, VAE, data, fit, likelihoods, nn, posteriors, priors
from pyro_vae.infer import GradientMoments, gradient_variance
from pyro_vae.infer.losses import ELBO, IWAE, DReG, ScoreFunction, StickingTheLanding, leave_one_out
from pyro_vae.plots import new_figure
from pyro_vae.scripts import count, exit_at_interrupt
from pyro_vae.system.files import writable_folder

ELBOS: dict[str, Callable[[int], Any]] = {
    "score function": ScoreFunction,
    "score function, baseline": lambda particles: ScoreFunction(particles, leave_one_out),
    "reparameterized, sampled KL": ELBO,
    "reparameterized, analytic KL": lambda particles: TraceMeanField_ELBO(
        particles, vectorize_particles=True, max_plate_nesting=1
    ),
    "sticking the landing": StickingTheLanding,
}
FEW, MANY = [1, 4, 16], [1, 4, 16, 64]  # particles, on linear models
Moments = dict[str, dict[int, GradientMoments]]  # by estimator and number of particles


def measure(
    vae: VAE, x: Tensor, estimators: dict[str, Callable[[int], Any]], particles: list[int], num_draws: int
) -> Moments:
    """The moments of the gradient for the guide, for each estimator and number of particles."""
    results: Moments = {}
    for name, make in estimators.items():
        counts = [
            count for count in particles if count > 1 or "baseline" not in name
        ]  # a baseline needs other particles
        losses = {str(count): make(count) for count in counts}
        moments = gradient_variance(vae.model, vae.guide, x, losses, num_draws=num_draws)
        results[name] = dict(zip(counts, moments.values(), strict=True))
    return results


def numbers_of_particles(moments: Moments) -> list[int]:
    return sorted({count for by_count in moments.values() for count in by_count})


def linear_vae() -> VAE:
    """A model with a known exact posterior, and a guide that differs from it."""
    decoder = torch.nn.Linear(2, 5)
    torch.nn.init.orthogonal_(decoder.weight)  # then the posterior has independent dimensions, as the guide has
    likelihood = likelihoods.Normal(decoder, 0.5).double().requires_grad_(False)
    return VAE(priors.StandardNormal(2).double(), likelihood, posteriors.Normal(torch.nn.Linear(5, 2 * 2)).double())


def bias(num_draws: int) -> dict[str, dict[int, dict[str, float]]]:
    """The errors of the mean gradients of a linear VAE, by estimator and number of particles."""
    vae = linear_vae()
    x, guide = vae.sample(10), vae.posterior
    # -ELBO = KL(q || p(z | x)) - log p(x), and log p(x) does not depend on the guide.
    q = MultivariateNormal(guide(x).mean, torch.diag_embed(guide(x).variance))
    distance = kl_divergence(q, posteriors.LinearGaussian(vae.likelihood, 2)(x)).sum()
    exact = flat(torch.autograd.grad(distance, list(guide.parameters())))
    moments = measure(vae, x, ELBOS, FEW, num_draws) | measure(vae, x, {"DReG": DReG}, [1], num_draws)
    return {
        name: {k: compare(flat(m.mean.values()), flat(m.mean_std_error.values()), exact) for k, m in by_count.items()}
        for name, by_count in moments.items()
    }


def compare(mean: Tensor, std_error: Tensor, exact: Tensor) -> dict[str, float]:
    """The errors in standard errors: the largest, and the mean of their squares, which should be about 1."""
    z = (mean - exact) / std_error
    return {
        "largest": z.abs().max().item(),
        "mean_square": z.square().mean().item(),
        "relative_error": ((mean - exact).norm() / exact.norm()).item(),
        "entries": len(z),
    }


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([each.flatten() for each in tensors])


def many_particles(num_draws: int) -> Moments:
    """The gradients of importance-weighted bounds of a linear VAE, for a guide close to the posterior."""
    vae = linear_vae()
    x = vae.sample(10)
    adam = torch.optim.Adam(vae.posterior.parameters(), lr=1e-2)
    svi = SVI(vae.model, vae.guide, adam, StickingTheLanding(), compile="graph")
    for _ in range(2000):
        svi.update(x)
    with torch.no_grad():
        for parameter in vae.posterior.parameters():
            parameter += 0.02 * torch.randn_like(parameter)  # with 0.05, more particles do not help DReG
    return measure(vae, x, {"IWAE": IWAE, "DReG": DReG}, MANY, num_draws)


def print_bias(results: dict[str, dict[int, dict[str, float]]]) -> None:
    entries = results["score function"][FEW[0]]["entries"]
    table = Table("estimator", *(f"k = {count}" for count in FEW))
    table.title = f"linear VAE: largest error among {entries} entries of the mean gradient, in standard errors"
    for name, by_count in results.items():
        table.add_row(name, *(f"{by_count[k]['largest']:.2f}" if k in by_count else "" for k in FEW))
    Console().print(table)


def print_variances(title: str, moments: Moments) -> None:
    counts = numbers_of_particles(moments)
    table = Table("estimator", *(f"k = {count}" for count in counts), title=title)
    for name, by_count in moments.items():
        cells = (f"{by_count[k].total_variance:.2g}" if k in by_count else "" for k in counts)
        table.add_row(name, *cells)
    Console().print(table)


def score_over_reparameterized(moments: Moments) -> tuple[float, float]:
    """The ratio of the two variances with the fewest particles, and its standard error."""
    score, other = (moments[name] for name in ("score function", "reparameterized, sampled KL"))
    pair = score[min(score)], other[min(other)]
    ratio = pair[0].total_variance / pair[1].total_variance
    return ratio, ratio * math.hypot(*(each.total_variance_std_error / each.total_variance for each in pair))


def draw(at_first: Moments, later: Moments, many: Moments) -> Figure:
    figure = new_figure(figsize=(14, 4.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes, moments in ((left, at_first), (middle, later), (right, many)):
        for name, by_count in moments.items():
            values = [m.signal_to_noise if axes is right else m.total_variance for m in by_count.values()]
            axes.plot(list(by_count), values, marker="o", label=name)
        counts = numbers_of_particles(moments)
        axes.set(xlabel="particles k", xscale="log", yscale="log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    left.set(title="MNIST VAE, at initialization", ylabel="total variance of the gradient for the guide")
    middle.set(title="MNIST VAE, after one epoch")
    middle.sharey(left)
    left.legend(fontsize="small", loc="center", bbox_to_anchor=(0.6, 0.62))
    right.set(title="linear VAE, close to the posterior", ylabel="signal-to-noise ratio: |mean| / standard deviation")
    right.legend()
    return figure


def summary(moments: GradientMoments) -> dict[str, float]:
    return {
        "total_variance": moments.total_variance,
        "total_variance_std_error": moments.total_variance_std_error,
        "signal_to_noise": moments.signal_to_noise,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--particles", type=count(), nargs="+", default=[1, 2, 5, 10], help="numbers of particles in a loss"
    )
    parser.add_argument("--draws", type=count(3), default=60, help="number of draws of each gradient")
    parser.add_argument(
        "--linear-draws", type=count(3), default=1500, help="number of draws of each gradient of the linear VAE"
    )
    parser.add_argument("--images", type=count(), default=20, help="number of images for which gradients are computed")
    parser.add_argument("--train-images", type=count(), default=50_000, help="number of training images in the epoch")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--out", default="results/gradient_variance", help="output folder; files in it are overwritten")
    args = parser.parse_args()
    try:
        out = writable_folder(args.out)
    except OSError as error:
        parser.error(str(error))
    torch.set_num_threads(1)  # more threads do not help with small tensors
    torch.manual_seed(args.seed)

    bias_results = bias(args.linear_draws)
    print_bias(bias_results)

    mnist = data.load("mnist")
    x = data.binarize.fixed(mnist.test[: args.images])
    vae = VAE(
        prior=priors.StandardNormal(20),
        likelihood=likelihoods.Bernoulli(nn.mlp(20, [200], (1, 28, 28))),
        posterior=posteriors.Normal(nn.mlp((1, 28, 28), [200], 2 * 20)),
    )
    moments = {"at initialization": measure(vae, x, ELBOS, args.particles, args.draws)}
    fit(vae, mnist.train[: args.train_images], epochs=1, lr=2e-3, transform=data.binarize.dynamic, progress=False)
    moments["after an epoch"] = measure(vae, x, ELBOS, args.particles, args.draws)
    ratios = {}
    for when, each in moments.items():
        print_variances(f"MNIST VAE {when}: total variance of the gradient for the guide", each)
        ratios[when] = score_over_reparameterized(each)
        print(f"variance, score function / reparameterized: {ratios[when][0]:.0f} +- {ratios[when][1]:.0f}\n")
    moments["many particles"] = many_particles(args.linear_draws)
    for name, by_count in moments["many particles"].items():
        values = ", ".join(f"{m.signal_to_noise:.3g} (k = {k})" for k, m in by_count.items())
        print(f"linear VAE, signal-to-noise ratio of {name}: {values}")

    numbers = {
        when: {name: {k: summary(m) for k, m in by_count.items()} for name, by_count in each.items()}
        for when, each in moments.items()
    }
    metrics = {"bias": bias_results, "moments": numbers, "score_over_reparameterized": ratios, "settings": vars(args)}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2))
    draw(*moments.values()).savefig(out / "gradient_variance.png", dpi=150)
    print(f"wrote metrics.json and gradient_variance.png to {out}/")


if __name__ == "__main__":
    exit_at_interrupt(main)
