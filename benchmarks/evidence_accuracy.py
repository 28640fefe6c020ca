"""How far each method of log p(x) is from the truth, against the seconds that it takes.

Three problems: (i) random linear-Gaussian models, of which log p(x) is known, with guides that are slightly and badly
off; (ii) a decoder with 2 latents, trained on MNIST, on test images, against quadrature on a grid; (iii) the model of
examples/mnist_svi.py, with 50 latents, on test images, against long annealing from Laplace. Methods run one after the
other, in one process. The table and the numbers in it go to --results after each row, and the picture at the end or
at Ctrl-C.

    python examples/mnist_svi.py             # the model of (iii)
    python benchmarks/evidence_accuracy.py
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from frameworks.process import machine, warn_if_busy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pyro import distributions as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from pyro_vae import VAE, data, evidence, fit, likelihoods, load, nn, posteriors, priors
from pyro_vae.scripts import count, exit_at_interrupt

FAR = 0.3  # nats
ROUNDING = 1e-4  # nats: sums of some twenty terms of size 10, in float32
SAMPLES = 500
IMAGES_OF_QUADRATURE = 500
GUIDES = {"slightly off": (0.2, 0.9), "badly off": (1.0, 0.6)}  # shift in standard deviations, and width
EPOCHS = 5


class Problem(NamedTuple):
    """Programs, data and the truth.

    Attributes:
        title: What it is.
        truth: log p(x), ``[n]``.
        truth_error: The half-width of a 95% interval for it, ``[n]``; no less than what rounding does.
        note: How the truth was found, and how well.
        num_slow: On how many datapoints, the first ones, the slow methods run.
    """

    title: str
    model: Callable[[Tensor], Any]
    guide: Callable[[Tensor], Any]
    x: Tensor
    truth: Tensor
    truth_error: Tensor
    note: str
    num_slow: int


class Method(NamedTuple):
    """A method of log p(x).

    Attributes:
        name: What it is called.
        family: What it is a setting of.
        run: Called with model, guide and data.
        slow: Whether it runs on the first datapoints only.
    """

    name: str
    family: str
    run: Callable[..., evidence.Evidence]
    slow: bool = False


def methods() -> list[Method]:
    sampled = {
        "guide": {},
        "widened": {"proposal": evidence.widened(1.5)},
        "defensive": {"proposal": evidence.defensive(0.1)},
        "Laplace": {"proposal": evidence.laplace()},
    }
    found = [
        Method(name, name, partial(evidence.importance, num_samples=SAMPLES, **options))
        for name, options in sampled.items()
    ]
    chains = {"laplace": ((10, 30), {"num_leapfrog": 3}), "guide": ((50,), {}), "prior": ((50,), {})}
    for start, (temperatures, options) in chains.items():
        family = f"annealed from {start.replace('laplace', 'Laplace')}"
        for num_temperatures in temperatures:
            run = partial(evidence.annealed, start=start, num_temperatures=num_temperatures, **options)
            found.append(Method(f"{family}, {num_temperatures}", family, run, slow=start != "laplace"))
    return [*found[:4], Method("estimate", "estimate", evidence.estimate), *found[4:]]


# (i) Linear-Gaussian models.


class LinearGaussians:
    """Datapoints that each have a model of their own: p(z) = N(0, I), p(x | z) = N(W z + b, s^2 I), 1 to 20 latents.

    Data end with the number of their model, so that rows stand for themselves. Weights of latents that are not used are
    zero.

    Args:
        n: The number of datapoints.
        seed: Of models and data.
        shift: How far the guide is from the posterior, in its standard deviations.
        width: The width of the guide, divided by that of the posterior.

    Attributes:
        x: ``[n, 23]``.
        truth: log p(x), ``[n]``.
    """

    LATENT, OBSERVED = 20, 22

    def __init__(self, n: int, seed: int, shift: float, width: float) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        latents = 1 + torch.arange(n) % self.LATENT
        used = torch.arange(self.LATENT) < latents[:, None]
        weight = normal(n, self.OBSERVED, self.LATENT) * used[:, None] / latents[:, None, None].sqrt()
        bias = normal(n, self.OBSERVED)
        scale = 0.3 + torch.rand(n, 1, dtype=torch.float64, generator=generator)
        x = (weight @ normal(n, self.LATENT, 1))[..., 0] + bias + scale * normal(n, self.OBSERVED)
        precision = torch.eye(self.LATENT) + weight.mT @ weight / scale[..., None] ** 2
        covariance = torch.linalg.inv(precision)
        tril = torch.linalg.cholesky(covariance)
        loc = (covariance @ weight.mT @ ((x - bias) / scale**2)[..., None])[..., 0]
        loc = loc + shift * used * tril.diagonal(dim1=-2, dim2=-1)
        tril = torch.where(used, width, 1.0)[..., None] * tril
        marginal = weight @ weight.mT + scale[..., None] ** 2 * torch.eye(self.OBSERVED)
        self.truth = dist.MultivariateNormal(bias, marginal).log_prob(x)
        self.x = torch.cat([x, torch.arange(n)[:, None]], dim=1).float()
        self.weight, self.bias, self.scale = weight.float(), bias.float(), scale.float()
        self.loc, self.tril = loc.float(), tril.float()

    def model(self, x: Tensor) -> None:
        number = x[:, -1].long()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.LATENT), 1.0).to_event(1))
            loc = torch.einsum("nij,...nj->...ni", self.weight[number], z) + self.bias[number]
            pyro.sample("x", dist.Normal(loc, self.scale[number]).to_event(1), obs=x[:, :-1])

    def guide(self, x: Tensor) -> None:
        number = x[:, -1].long()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(self.loc[number], scale_tril=self.tril[number]))


def linear_gaussians(args: argparse.Namespace) -> Iterator[Problem]:
    n = min(args.images, IMAGES_OF_QUADRATURE)
    for name, (shift, width) in GUIDES.items():
        models = LinearGaussians(n, args.seed, shift, width)
        yield Problem(
            title=f"(i) linear-Gaussian models, 1 to 20 latents, guide {name}",
            model=models.model,
            guide=models.guide,
            x=models.x,
            truth=models.truth,
            truth_error=torch.full_like(models.truth, ROUNDING),
            note=f"The truth is exact, up to rounding in float32 (taken to be {ROUNDING} nats). The guide is the "
            f"posterior, moved by {shift} of its standard deviations in each dimension, and {width} times as wide.",
            num_slow=n,
        )


# (ii) Two latents.


class Quadrature(NamedTuple):
    """log p(x) by quadrature, ``[n]``; its change when the step was halved; the share of it near the grid's border."""

    log_prob: Tensor
    change: Tensor
    near_border: Tensor


@torch.no_grad()
def quadrature(
    log_likelihood: Callable[[Tensor], Tensor], half_width: float = 6.0, num_points: int = 1600
) -> Quadrature:
    """Integrates p(x | z) p(z) over z in 2 dimensions, p(z) = N(0, I), by the trapezoidal rule on a square grid.

    Args:
        log_likelihood: Called with z, ``[points, 2]``, in float64; returns log p(x | z), ``[n, points]``.
        half_width: The grid goes from minus to plus that.
        num_points: On a side, even; one more is added, so that every second point makes a grid of twice the step.
    """
    side = torch.linspace(-half_width, half_width, num_points + 1, dtype=torch.float64)
    log_prior = -(side.square() + math.log(2 * math.pi)) / 2
    border = side.abs() > half_width - 0.5
    fine, coarse, outside = [], [], []
    for i, (first, log_prior_of_first) in enumerate(zip(side, log_prior, strict=True)):
        z = torch.stack([first.expand_as(side), side], dim=-1)
        joint = log_likelihood(z).double() + (log_prior_of_first + log_prior)
        fine.append(joint.logsumexp(1))
        if i % 2 == 0:
            coarse.append(joint[:, ::2].logsumexp(1))
        outside.append(fine[-1] if border[i] else joint[:, border].logsumexp(1))
    total, half, rim = (torch.stack(lines).logsumexp(0) for lines in (fine, coarse, outside))
    log_prob = total + 2 * math.log(2 * half_width / num_points)
    return Quadrature(log_prob, (total - half - math.log(4)).abs(), (rim - total).exp())


def log_bernoulli(network: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    """log p(x | z) of binary data ``[n, *event]`` at z ``[points, latent]``, ``[n, points]``, by one matrix product."""
    flat = x.flatten(1)

    def log_likelihood(z: Tensor) -> Tensor:
        logits = network(z.to(x.dtype)).flatten(1)
        return flat @ logits.T - functional.softplus(logits).sum(1)

    return log_likelihood


def two_latents(args: argparse.Namespace) -> Iterator[Problem]:
    image = (1, 28, 28)
    torch.manual_seed(0)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(nn.mlp(2, [400, 400], image)),
        posteriors.Normal(nn.mlp(image, [400, 400], 4)),
    )
    mnist = data.load("mnist")
    folder = args.out / "two_latents"
    fit(vae, mnist.train, epochs=EPOCHS, transform=data.binarize.dynamic, seed=0, out=folder, resume=True)
    vae = load(folder)
    x = data.binarize.fixed(mnist.test)[: min(args.images, IMAGES_OF_QUADRATURE)]

    def compute() -> dict[str, Tensor]:
        print("quadrature", flush=True)
        return quadrature(log_bernoulli(vae.likelihood.network, x), num_points=args.grid)._asdict()

    key = {"of": fingerprint(vae, x), "grid": args.grid}
    found = Quadrature(**cached(args.out / "two_latents.safetensors", key, compute))
    yield Problem(
        title="(ii) MNIST, 2 latents",
        model=vae.model,
        guide=vae.guide,
        x=x,
        truth=found.log_prob,
        truth_error=found.change + ROUNDING,
        note=f"The truth is by quadrature on [-6, 6]^2 in {args.grid} steps a side: with half as many it changes by at "
        f"most {found.change.max():.1e} nats. At most {found.near_border.max():.1e} of a posterior lies within 0.5 of "
        "the border.",
        num_slow=min(args.slow_images, len(x)),
    )


# (iii) The default example.


def default_example(args: argparse.Namespace) -> Iterator[Problem]:
    try:
        vae = load(args.model)
    except FileNotFoundError:
        print(f"(iii) is left out: there is no model in {args.model}; python examples/mnist_svi.py makes one")
        return
    x = data.binarize.fixed(data.load("mnist").test)[: args.images]
    key: dict[str, Any] = {"of": fingerprint(vae, x), "num_temperatures": 512, "num_chains": 16, "num_leapfrog": 2}

    def compute() -> dict[str, Tensor]:
        print("reference, by annealing", flush=True)
        torch.manual_seed(args.seed + 1)  # not that of the methods
        options = {name: value for name, value in key.items() if name != "of"}
        file = args.out / f"reference_{key['of']}.resume"
        found = evidence.annealed(vae.model, vae.guide, x, start="laplace", keep=file, **options)
        return {name: getattr(found, name) for name in ("log_prob", "std_error", "ess")}

    found = cached(args.out / "default_example.safetensors", key, compute)
    yield Problem(
        title="(iii) the default example, 50 latents",
        model=vae.model,
        guide=vae.guide,
        x=x,
        truth=found["log_prob"],
        truth_error=1.96 * found["std_error"],
        note="The reference is annealing from Laplace, 512 temperatures, 16 chains, 2 leapfrog steps: mean log p(x) "
        f"= {found['log_prob'].mean():.3f}; its standard error has a median of {found['std_error'].median():.3f} "
        f"for an image, and is {found['std_error'].square().sum().sqrt() / len(x):.4f} for the mean; effective sample "
        f"size: median {found['ess'].median():.1f}, least {found['ess'].min():.1f} of 16.",
        num_slow=min(args.slow_images, len(x)),
    )


PROBLEMS = {"i": linear_gaussians, "ii": two_latents, "iii": default_example}


def fingerprint(vae: VAE, x: Tensor) -> str:
    """A number that tells a trained model and its data from others."""
    values = [*vae.state_dict().values(), x]
    return f"{len(x)}_{sum((k + 1) * value.double().abs().sum().item() for k, value in enumerate(values)):.6f}"


def cached(path: Path, key: Mapping[str, Any], compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors in a file, if they are of this key; else they are computed, and kept there."""
    words = {name: str(value) for name, value in key.items()}
    if path.exists():
        with safe_open(path, "pt") as file:
            if file.metadata() == words:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors = {name: tensor.contiguous() for name, tensor in compute().items()}
    save_file(tensors, path, words)
    return tensors


# Figures, table, picture.


def figures(result: evidence.Evidence, truth: Tensor, truth_error: Tensor, seconds: float) -> dict[str, float | None]:
    """What there is to say of an estimate of which the truth is known; None where it is not finite."""
    n = len(truth)
    difference = result.log_prob - truth
    # The errors of the estimate and of the truth are independent.
    covered = difference.abs() <= (result.error.square() + truth_error.square()).sqrt()
    settled, rms = result.settled, difference.square().mean().sqrt()
    rms_settled = difference[settled].square().mean().sqrt()
    found = {
        "datapoints": n,
        "seconds": seconds,
        "seconds_per_datapoint": seconds / n,
        "mean_difference": difference.mean(),
        "mean_difference_se": difference.std() / math.sqrt(n),
        "rms": rms,
        "beyond": (difference.abs() > FAR).double().mean(),
        "settled": settled.double().mean(),
        "covered": covered.double().mean(),
        "covered_settled": covered[settled].double().mean(),
        "median_error_by_rms": result.error[settled].median() / rms_settled if settled.any() else math.nan,
        "mean_error": result.mean_error,
    }
    return {name: float(value) if math.isfinite(value) else None for name, value in found.items()}


HEAD = (
    "method | n | seconds | s per datapoint | mean error | RMS error | beyond 0.3 | error known | covers "
    "| covers where known | median error / RMS | error of the mean"
)


def table_row(row: Mapping[str, Any]) -> str:
    def share(name: str) -> str:
        return "" if row[name] is None else f"{row[name]:.1%}"

    def number(name: str, form: str, missing: str = "") -> str:
        return missing if row[name] is None else format(row[name], form)

    cells = [
        row["method"],
        number("datapoints", ".0f"),
        number("seconds", ".1f"),
        number("seconds_per_datapoint", ".2g"),
        f"{number('mean_difference', '+.4f')} +- {number('mean_difference_se', '.4f')}",
        number("rms", ".4f"),
        *(share(name) for name in ("beyond", "settled", "covered", "covered_settled")),
        number("median_error_by_rms", ".1f"),
        number("mean_error", ".4f", "not known"),
    ]
    return f"| {' | '.join(cells)} |"


def table(content: Mapping[str, Any]) -> str:
    on = content["machine"]
    lines = [
        "# Error of log p(x) against time\n",
        f"Made by `benchmarks/evidence_accuracy.py`, on {on['cpu']}, {on['threads']} threads, torch "
        f"{on['packages']['torch']}.\n",
        f"Guide, widened (1.5), defensive (0.1) and Laplace: importance sampling, {SAMPLES} samples. Annealed: 32 "
        "chains, with the number of temperatures; 10 leapfrog steps, 3 from Laplace. Estimate: `evidence.estimate` at "
        "its defaults. Mean error: estimate - truth in nats, with the standard error over datapoints. Covers: the "
        "share of *all* datapoints of which the 95% interval has the truth in it; an infinite one has. Median error / "
        "RMS: of the printed errors, where they are known, against what they were. Error of the mean: as printed "
        "(`mean_error`).",
    ]
    for problem in content["problems"].values():
        lines += [
            f"\n## {problem['title']}\n",
            f"{problem['note']}\n",
            f"| {HEAD} |",
            "|---" * len(HEAD.split("|")) + "|",
        ]
        lines += [table_row(row) for row in problem["rows"]]
    return "\n".join(lines) + "\n"


STYLES = {
    "guide": ("o", "tab:gray"),
    "widened": ("v", "tab:brown"),
    "defensive": ("^", "tab:olive"),
    "Laplace": ("s", "tab:blue"),
    "estimate": ("*", "tab:red"),
    "annealed from Laplace": ("D", "tab:cyan"),
    "annealed from guide": ("P", "tab:green"),
    "annealed from prior": ("X", "tab:purple"),
}


def picture(content: Mapping[str, Any]) -> Figure:
    """RMS error against seconds per datapoint, a panel for each problem."""
    problems = [problem for problem in content["problems"].values() if problem["rows"]]
    columns = min(2, len(problems))
    lines = -(-len(problems) // columns)
    figure = Figure(figsize=(6.2 * columns, 4.6 * lines + 0.4), layout="constrained", dpi=150)
    panels = figure.subplots(lines, columns, squeeze=False).flat
    marked = []
    for axes, problem in zip(panels, problems, strict=False):
        points = {}
        for family, (marker, color) in STYLES.items():
            rows = [row for row in problem["rows"] if row["family"] == family and row["rms"]]
            at = [(row["seconds_per_datapoint"], row["rms"]) for row in rows]
            if at:
                size = 14 if marker == "*" else 7
                axes.plot(*zip(*at, strict=True), color=color, marker=marker, markersize=size, linewidth=0.8)
            for row, point in zip(rows, at, strict=True):
                points[point] = row["method"].replace("annealed from", "from"), color
        axes.set(xscale="log", yscale="log", title=problem["title"])
        axes.title.set_fontsize("medium")
        axes.set(xlabel="seconds for a datapoint", ylabel="RMS error of log p(x), nats")
        axes.grid(alpha=0.2)
        axes.margins(0.25, 0.14)
        marked.append((axes, points))
    for axes in list(panels)[len(problems) :]:
        axes.set_visible(False)
    figure.suptitle('"from Laplace, 30": annealed from there, with 30 temperatures', fontsize="small")
    figure.draw_without_rendering()  # labels are placed where there is room, which is known now
    for axes, points in marked:
        label(axes, points)
    return figure


def label(axes: Any, points: Mapping[tuple[float, float], tuple[str, str]]) -> None:
    """Writes the name of each point beside it, where it is furthest from other points and names."""
    figure, pixel = axes.figure, axes.figure.dpi / 72
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside = axes.get_window_extent(renderer)
    at = {point: axes.transData.transform(point) for point in points}
    obstacles = [*at.values()]
    for line in axes.lines:  # which are taken to be rows of dots
        for start, end in pairwise(axes.transData.transform(line.get_xydata())):
            obstacles += [start + (end - start) * step / 20 for step in range(21)]
    taken = [(x - 6 * pixel, y - 6 * pixel, x + 6 * pixel, y + 6 * pixel) for x, y in obstacles]
    for point, (name, color) in points.items():
        text = axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=8, color=color)
        extent = text.get_window_extent(renderer)
        width, height = extent.width / pixel, extent.height / pixel
        best = None
        for distance in (8, 14, 22, 32, 44):
            for turn in range(16):
                x, y = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
                offset = distance * x + (x - 1) * width / 2, distance * y + (y - 1) * height / 2
                left, bottom = at[point][0] + offset[0] * pixel, at[point][1] + offset[1] * pixel
                box = left, bottom, left + extent.width, bottom + extent.height
                outside = left < inside.x0 or bottom < inside.y0 or box[2] > inside.x1 or box[3] > inside.y1
                cost = distance + 1e6 * outside + sum(_overlap(box, other) for other in taken)
                if best is None or cost < best[0]:
                    best = cost, offset, box, distance
        _, offset, box, distance = best
        text.set_position(offset)
        taken.append(box)
        if distance > 14:
            arrow = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
            nearest = [min(max(0.0, o), o + s) for o, s in zip(offset, (width, height), strict=True)]
            axes.annotate("", point, xytext=nearest, textcoords="offset points", arrowprops=arrow)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return across * up if across > 0 and up > 0 else 0.0


def save(content: Mapping[str, Any], folder: Path) -> None:
    (folder / "evidence_accuracy.json").write_text(json.dumps(content, indent=1))
    (folder / "evidence_accuracy.md").write_text(table(content))


def draw(content: Mapping[str, Any], folder: Path) -> None:
    if any(problem["rows"] for problem in content["problems"].values()):
        picture(content).savefig(folder / "evidence_accuracy.png")


def measure(method: Method, problem: Problem, seed: int) -> dict[str, Any]:
    """A row: the method on the problem."""
    n = problem.num_slow if method.slow else len(problem.x)
    torch.manual_seed(seed)
    start = time.perf_counter()
    result = method.run(problem.model, problem.guide, problem.x[:n], progress=iter)
    seconds = time.perf_counter() - start
    found = figures(result, problem.truth[:n], problem.truth_error[:n], seconds)
    return {"method": method.name, "family": method.family, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), help="some of the problems")
    parser.add_argument("--images", type=count(), default=1000, help="of (iii); at most 500 in (i) and (ii)")
    parser.add_argument("--slow-images", type=count(), default=50, help="of annealing from guide or prior")
    parser.add_argument("--grid", type=count(), default=1600, help="steps of the quadrature on each side, even")
    parser.add_argument("--model", type=Path, default=Path("results/mnist_svi"), help="the run folder of (iii)")
    parser.add_argument("--out", type=Path, default=Path("results/evidence_accuracy"), help="trained model, references")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="table and picture")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.grid % 2:
        parser.error(f"--grid is {args.grid}; expected an even number")
    for folder in (args.out, args.results):
        folder.mkdir(parents=True, exist_ok=True)
    warn_if_busy()
    # Problems that are not run this time stay in the table.
    file = args.results / "evidence_accuracy.json"
    known = json.loads(file.read_text())["problems"] if file.exists() else {}
    content = {"machine": machine(torch.get_num_threads()), "seed": args.seed, "problems": known}
    try:
        for name in args.only:
            for problem in PROBLEMS[name](args):
                print(f"\n{problem.title}\n{problem.note}\n\n{HEAD}", flush=True)
                rows: list[dict[str, Any]] = []
                known[problem.title] = {"title": problem.title, "note": problem.note, "rows": rows}
                content["problems"] = dict(sorted(known.items(), key=lambda item: item[0].split(" ")[0]))
                for method in methods()[:2]:  # the first calls in a process pay for what is loaded then
                    method.run(problem.model, problem.guide, problem.x[:2], progress=iter)
                for method in methods():
                    rows.append(measure(method, problem, args.seed))
                    print(table_row(rows[-1]), flush=True)
                    save(content, args.results)
    finally:
        draw(content, args.results)
    print(f"\nwrote evidence_accuracy.md, .json and .png to {args.results}")


if __name__ == "__main__":
    exit_at_interrupt(main)
