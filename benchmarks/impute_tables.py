"""Missing values of tables, filled in by a VAE and by scikit-learn: error of the values and coverage of intervals.

A fifth of the values is removed at random from three tables of scikit-learn. Every method sees the rest, and fills in
what was removed: the mean or most frequent value, the 5 nearest neighbours, chained equations (``IterativeImputer``;
van Buuren & Groothuis-Oudshoorn 2011), and a VAE with ``likelihoods.Columns`` (``tables.fill_table``).

The published results are of ``--draws 99 --first-seed 100 --repeats 3``. These seeds were not used to choose the
options.

``python benchmarks/impute_tables.py`` writes ``results/impute_tables.md`` and ``.json``; about 20 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from torch.optim.lr_scheduler import LinearLR

from pyro_vae import VAE, fit, likelihoods, nn, posteriors, priors
from pyro_vae.cli.look import steps_of_table
from pyro_vae.scripts import count, exit_at_interrupt
from pyro_vae.tables import Table, fill_table

HIDDEN, BATCH, PROBABILITY = 32, 64, 0.9
CHAINED = 19  # draws of chained equations, of which an interval of 90% has the smallest and the largest as ends
SHARE = 0.2  # of the values that are removed
TABLES = {
    "wine": lambda: datasets.load_wine(as_frame=True).frame.assign(
        target=lambda f: "cultivar " + f["target"].astype(str)
    ),
    "breast cancer": lambda: datasets.load_breast_cancer(as_frame=True).frame,
    "diabetes": lambda: datasets.load_diabetes(as_frame=True, scaled=False).frame,
}
Filled = tuple[np.ndarray, np.ndarray | None]  # numbers [n, columns], and draws [draws, n, columns] if there are any


def is_number(column: Any) -> bool:
    return column.kind in ("real", "positive", "count", "ordinal")


def by_mean(table: Table, x: np.ndarray, *_: int) -> Filled:
    filled = x.copy()
    for i, column in enumerate(table.kept):
        known = x[~np.isnan(x[:, i]), i]
        values, counts = np.unique(known, return_counts=True)
        filled[np.isnan(x[:, i]), i] = known.mean() if is_number(column) else values[counts.argmax()]
    return filled, None


def standardized(table: Table, x: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Columns of mean 0 and scale 1, a column for each category but the first; and the way back to numbers."""
    parts: list[np.ndarray] = []
    for i, column in enumerate(table.kept):
        value = x[:, i]
        if is_number(column):
            parts.append(((value - np.nanmean(value)) / np.nanstd(value))[:, None])
        else:
            categories = np.arange(1, len(column.categories))  # the first is the case when it is none of these
            parts.append(np.where(np.isnan(value)[:, None], np.nan, (value[:, None] == categories).astype(float)))

    def back(wide: np.ndarray) -> np.ndarray:
        columns, begin = [], 0
        for i, column in enumerate(table.kept):
            if is_number(column):
                columns.append(np.nanmean(x[:, i]) + np.nanstd(x[:, i]) * wide[:, begin])
                begin += 1
            else:
                width = len(column.categories) - 1
                others = wide[:, begin : begin + width]
                first = 1 - others.sum(1, keepdims=True)
                columns.append(np.concatenate([first, others], axis=1).argmax(1).astype(float))
                begin += width
        return np.stack(columns, axis=1)

    return np.concatenate(parts, axis=1), back


def by_neighbours(table: Table, x: np.ndarray, *_: int) -> Filled:
    wide, back = standardized(table, x)
    return back(KNNImputer(n_neighbors=5).fit_transform(wide)), None


def by_chained_equations(table: Table, x: np.ndarray, seed: int, _: int) -> Filled:
    wide, back = standardized(table, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it seldom converges in 10 rounds, and says so
        point = back(IterativeImputer(random_state=seed).fit_transform(wide))
        random = [
            back(IterativeImputer(random_state=seed + i, sample_posterior=True).fit_transform(wide))
            for i in range(CHAINED)
        ]
    return point, np.stack(random)


def by_vae(table: Table, x: np.ndarray, seed: int, draws: int) -> Filled:
    torch.manual_seed(seed)
    data = torch.from_numpy(x).float()
    latent = min(16, len(table.kept) // 2 + 2)
    features = table.features()
    vae = VAE(
        priors.StandardNormal(latent),
        likelihoods.Incomplete(table.likelihood(nn.mlp(latent, [HIDDEN], table.num_parameters))),
        posteriors.ProductOfExperts(features, features.num_features, latent),
    )
    epochs = round(steps_of_table(len(data)) * BATCH / len(data))
    decay = partial(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=epochs)
    settings = {"batch_size": BATCH, "lr": 2e-2, "scheduler": decay, "compile": "graph", "seed": seed}
    fit(vae, data, epochs=epochs, progress=False, **settings)
    frame = table.frame(torch.from_numpy(x))
    options = {"num_draws": draws, "num_samples": max(draws, 200), "method": "guide", "progress": False}
    filled = fill_table(table, vae.model, vae.guide, frame, **options)
    return table.tensor(filled.frame).numpy(), filled.imputation.draws.numpy()


METHODS = {
    "mean or most frequent": by_mean,
    "5 nearest neighbours": by_neighbours,
    "chained equations": by_chained_equations,
    "VAE": by_vae,
}


def measure(name: str, seed: int, draws: int, methods: list[str]) -> dict[str, dict[str, float]]:
    """The errors of every method on one table."""
    frame = TABLES[name]()
    whole = Table.of(frame)
    truth = whole.tensor(frame).double().numpy()
    random = np.random.default_rng(seed)
    x = np.where(random.random(truth.shape) < SHARE, np.nan, truth)
    table = Table.of(whole.frame(torch.from_numpy(x)), {column.name: column.kind for column in whole.kept})
    missing = np.isnan(x)
    numbers = np.array([is_number(column) for column in table.kept])
    scale = truth.std(0)
    rows = {}
    for method in methods:
        filled, drawn = METHODS[method](table, x, seed, draws)
        error = ((filled - truth) / scale)[:, numbers][missing[:, numbers]]
        row = {"rmse": float(np.sqrt((error**2).mean()))}
        if not numbers.all():
            row["wrong"] = float((np.rint(filled) != truth)[:, ~numbers][missing[:, ~numbers]].mean())
        if drawn is not None:
            ends = np.quantile(drawn, [(1 - PROBABILITY) / 2, (1 + PROBABILITY) / 2], axis=0, method="weibull")
            inside = (ends[0] <= truth) & (truth <= ends[1])
            row["covered"] = float(inside[:, numbers][missing[:, numbers]].mean())
            row["width"] = float(((ends[1] - ends[0]) / scale)[:, numbers][missing[:, numbers]].mean())
        rows[method] = {**row, "seed": seed}
        print(name, seed, method, row, flush=True)
    return rows


def table_of(content: dict[str, Any]) -> str:
    lines = [
        "# Missing values of tables",
        "",
        "Made by `benchmarks/impute_tables.py`: mean over repetitions, each with other missing values, and its "
        "standard error. A fifth of the values is removed at random. RMSE: of numbers, in standard deviations of their "
        f"column. Covered: how often the {PROBABILITY:.0%} interval of a number has the truth in it. Width: of this "
        "interval, likewise.",
        "",
        "| table | repetitions | method | RMSE | wrong categories | covered | width |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, methods in content["tables"].items():
        for method, repeats in methods.items():
            cells = []
            for key, form in (("rmse", "{:.3f}"), ("wrong", "{:.1%}"), ("covered", "{:.1%}"), ("width", "{:.2f}")):
                values = np.array([row[key] for row in repeats if key in row])
                error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
                noise = f" +- {form.format(error)}" if len(values) > 1 else ""
                cells.append(form.format(values.mean()) + noise if len(values) else "")
            lines.append(f"| {name} | {len(repeats)} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=count(), default=5, help="sets of missing values for each table")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first set; the next ones follow")
    parser.add_argument("--draws", type=count(2), default=50, help="draws for the intervals")
    parser.add_argument(
        "--only", nargs="+", choices=TABLES, default=list(TABLES), help="some of the tables; the others are kept"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="some of the methods")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the results")
    args = parser.parse_args()
    found = args.results / "impute_tables.json"
    content: dict[str, Any] = {"tables": json.loads(found.read_text())["tables"] if found.exists() else {}}
    for name in args.only:
        content["tables"][name] = content["tables"].get(name, {}) | {method: [] for method in args.methods}
    for seed in range(args.first_seed, args.first_seed + args.repeats):
        for name in args.only:
            for method, row in measure(name, seed, args.draws, args.methods).items():
                content["tables"][name][method].append(row)
            found.write_text(json.dumps(content, indent=1) + "\n")
            (args.results / "impute_tables.md").write_text(table_of(content))


if __name__ == "__main__":
    exit_at_interrupt(main)
