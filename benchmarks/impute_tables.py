"""Missing values of tables, filled in by a VAE and by scikit-learn: error of the values and coverage of intervals.

A fifth of the values is removed at random from three tables of scikit-learn. Every method sees the rest, and fills in
what was removed: the mean or most frequent value, the 5 nearest neighbours, chained equations (``IterativeImputer``;
van Buuren & Groothuis-Oudshoorn 2011), and a VAE with ``likelihoods.Columns`` (``tables.fill_table``).

``python benchmarks/impute_tables.py`` writes ``results/impute_tables.md`` and ``.json``; about 5 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer

from pyro_vae import VAE, fit, likelihoods, nn, posteriors, priors
from pyro_vae.scripts import count, exit_at_interrupt
from pyro_vae.tables import Table, fill_table

LATENT, HIDDEN, PROBABILITY = 4, 64, 0.9
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


def by_chained_equations(table: Table, x: np.ndarray, seed: int, draws: int) -> Filled:
    wide, back = standardized(table, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it seldom converges in 10 rounds, and says so
        point = back(IterativeImputer(random_state=seed).fit_transform(wide))
        random = [
            back(IterativeImputer(random_state=seed + i, sample_posterior=True).fit_transform(wide))
            for i in range(draws)
        ]
    return point, np.stack(random)


def by_vae(table: Table, x: np.ndarray, seed: int, draws: int) -> Filled:
    torch.manual_seed(seed)
    data = torch.from_numpy(x).float()
    order = torch.randperm(len(data))
    held_out = len(data) // 10

    def new_vae() -> VAE:
        return VAE(
            priors.StandardNormal(LATENT),
            likelihoods.Incomplete(table.likelihood(nn.mlp(LATENT, [HIDDEN], table.num_parameters))),
            posteriors.Normal(table.encoder(nn.mlp(table.num_features, [HIDDEN], 2 * LATENT))),
        )

    # How many epochs is decided on rows that are held out; then all rows are trained on.
    settings = {"batch_size": 32, "lr": 2e-3, "seed": seed, "progress": False}
    trial = fit(new_vae(), data[order[held_out:]], data[order[:held_out]], epochs=400, patience=40, **settings)
    vae = new_vae()
    fit(vae, data, epochs=max(1, trial.best_epoch or 1), **settings)
    frame = table.frame(torch.from_numpy(x))
    filled = fill_table(
        table, vae.model, vae.guide, frame, num_draws=draws, num_samples=max(draws, 400), progress=False
    )
    return table.tensor(filled.frame).numpy(), filled.imputation.draws.numpy()


METHODS = {
    "mean or most frequent": by_mean,
    "5 nearest neighbours": by_neighbours,
    "chained equations": by_chained_equations,
    "VAE": by_vae,
}


def measure(name: str, seed: int, draws: int) -> dict[str, dict[str, float]]:
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
    for method, fill in METHODS.items():
        filled, drawn = fill(table, x, seed, draws)
        error = ((filled - truth) / scale)[:, numbers][missing[:, numbers]]
        row = {"rmse": float(np.sqrt((error**2).mean()))}
        if not numbers.all():
            row["wrong"] = float((np.rint(filled) != truth)[:, ~numbers][missing[:, ~numbers]].mean())
        if drawn is not None:
            ends = np.quantile(drawn, [(1 - PROBABILITY) / 2, (1 + PROBABILITY) / 2], axis=0)
            inside = (ends[0] <= truth) & (truth <= ends[1])
            row["covered"] = float(inside[:, numbers][missing[:, numbers]].mean())
            row["width"] = float(((ends[1] - ends[0]) / scale)[:, numbers][missing[:, numbers]].mean())
        rows[method] = row
        print(name, seed, method, row, flush=True)
    return rows


def table_of(content: dict[str, Any]) -> str:
    lines = [
        "# Missing values of tables",
        "",
        f"Made by `benchmarks/impute_tables.py`: {content['repeats']} repetitions, mean and standard error. A fifth of "
        "the values is removed at random. RMSE: of numbers, in standard deviations of their column. Covered: how often "
        f"the {PROBABILITY:.0%} interval of a number has the truth in it. Width: of this interval, likewise.",
        "",
        "| table | method | RMSE | wrong categories | covered | width |",
        "|---|---|---|---|---|---|",
    ]
    for name, methods in content["tables"].items():
        for method, repeats in methods.items():
            cells = []
            for key, form in (("rmse", "{:.3f}"), ("wrong", "{:.1%}"), ("covered", "{:.1%}"), ("width", "{:.2f}")):
                values = np.array([row[key] for row in repeats if key in row])
                error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
                cells.append(f"{form.format(values.mean())} +- {form.format(error)}" if len(values) else "")
            lines.append(f"| {name} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=count(), default=5, help="sets of missing values for each table")
    parser.add_argument("--draws", type=count(2), default=50, help="draws for the intervals")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="some of the tables")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the results")
    args = parser.parse_args()
    content: dict[str, Any] = {"repeats": args.repeats, "tables": {}}
    for name in args.only:
        each = [measure(name, seed, args.draws) for seed in range(args.repeats)]
        content["tables"][name] = {method: [rows[method] for rows in each] for method in METHODS}
        (args.results / "impute_tables.json").write_text(json.dumps(content, indent=1) + "\n")
        (args.results / "impute_tables.md").write_text(table_of(content))


if __name__ == "__main__":
    exit_at_interrupt(main)
