"""Tables and pages of benchmark results, made from the files in benchmarks/results.

In Markdown files, the lines between ``<!-- results: NAME -->`` and ``<!-- end of results -->`` are the table NAME of
this file. ``python docs/results_pages.py`` writes these tables again, after a benchmark has written new results, and
``tests/test_results_pages.py`` fails if they are out of date. ``write`` makes the pages of the site.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)

PYRO, BY_HAND, NUMPYRO = "Pyro, TraceMeanField_ELBO", "by hand", "NumPyro"
BASELINES = PYRO, BY_HAND, NUMPYRO
IN_SHORT = "vae-1", "iwae-5", "vae-2-layers-1", "gated-vae", "hvae"  # the rows of README.md
TITLES = {"mnist": "MNIST", "omniglot": "Omniglot", "fashion_mnist": "Fashion-MNIST"}
NEAR = 0.3  # nats: a row whose number by the protocol is not lower than that below the paper's is reproduced
FLOW_OF_PYRO = "Pyro, Trace_ELBO"  # the KL divergence from a flow has no formula


def results(name: str) -> dict[str, Any]:
    """The content of a JSON file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = list(head)
    first, *others = ("".join(f"| {cell} " if cell else "| " for cell in row) + "|\n" for row in (head, *rows))
    return "".join([first, "|---" * len(head) + "|\n", *others])


def source(content: dict[str, Any], command: str) -> str:
    """A line with the machine, the versions and the command that makes the results again."""
    on = content["machine"]
    versions = [f"{package} {version}" for package, version in on["packages"].items() if version]
    threads = f"{on['threads']} thread{'s' if on['threads'] > 1 else ''}"
    words = [on["cpu"], threads, on["gpu"] or "no GPU", f"Python {on['python']}", *versions]
    when = f" on {on['date']}" if "date" in on else ""
    return f"\nMeasured{when}: {', '.join(words)}. Command: `python benchmarks/{command}`\n"


def spread(values: list[float], form: str) -> str:
    """The median and the range, or one value alone."""
    middle, least, most = (format(each, form) for each in (median(values), min(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"


def milliseconds(row: dict[str, Any]) -> list[float]:
    """The time of a step in each round."""
    return [1000 * seconds for seconds in row["seconds_per_step"]]


def step_time_in_short() -> str:
    """The table of docs/fast_svi.md."""
    rows = results("step_time_mlp")["results"][0]["rows"]

    def cells(name: str) -> list[str]:
        ratios = {baseline: f"{median(rows[name]['ratios'][baseline]):.2f}" for baseline in BASELINES}
        return [f"{median(milliseconds(rows[name])):.2f}", *("1" if name == each else ratios[each] for each in ratios)]

    ours = {
        "`pyro_vae.SVI`, compiled, bfloat16": "pyro_vae, compiled, bfloat16",
        "`pyro_vae.SVI`, compiled": "pyro_vae, compiled",
        '`pyro_vae.SVI`, `compile="graph"`': "pyro_vae, graph",
    }
    others = {
        "`pyro.infer.SVI`, `TraceMeanField_ELBO`": PYRO,
        "PyTorch by hand, fused Adam": BY_HAND,
        "PyTorch by hand, `torch.compile`": "by hand, torch.compile",
        "NumPyro, one jitted loop": NUMPYRO,
        "pythae's trainer": "pythae",
    }
    limits = zip(cells("matrix products"), cells("matrix products, bfloat16"), strict=True)
    return table(
        ["", "ms per step", "/ Pyro", "/ PyTorch by hand", "/ NumPyro"],
        [
            *([f"**{cell}**" for cell in (title, *cells(name))] for title, name in ours.items()),
            *([title, *cells(name)] for title, name in others.items()),
            ["the matrix products alone (a lower limit), float32 / bfloat16", *(" / ".join(pair) for pair in limits)],
        ],
    )


def step_time() -> str:
    """All contestants, at batches of 128."""
    content = results("step_time_mlp")
    rows = content["results"][0]["rows"]
    return table(
        ["mlp, batches of 128", "ms per step", f"/ {PYRO}", f"/ {BY_HAND}", f"/ {NUMPYRO}"],
        (
            [name, *(spread(values, ".2f") for values in (milliseconds(row), *map(row["ratios"].get, BASELINES)))]
            for name, row in rows.items()
        ),
    ) + source(content, f"step_time.py --models mlp --rounds {content['rounds']} --json FILE")


def step_times(contents: Sequence[dict[str, Any]], commands: Sequence[str]) -> str:
    """A table with a column for each model and batch size, of the contestants that all of them have."""
    found = [one for content in contents for one in content["results"]]
    models = [one["work"]["model"] for one in found]
    found.sort(key=lambda one: (models.index(one["work"]["model"]), one["work"]["batch_size"]))
    each = {f"{one['work']['model']} {one['work']['batch_size']}": one["rows"] for one in found}

    def cell(rows: dict[str, Any], name: str) -> str:
        row = rows[name]
        if name == PYRO and "left_out" in row:
            row = rows[FLOW_OF_PYRO]
        if "left_out" in row:
            return "-"
        return f"{median(milliseconds(row)):.3g} ({median(row['ratios'][NUMPYRO]):.2f})"

    titles = {PYRO: f"{PYRO} (flow: Trace_ELBO)"}
    first, *others = each.values()
    names = [name for name in first if name != FLOW_OF_PYRO and all(name in rows for rows in others)]
    rows = ([titles.get(name, name), *(cell(rows, name) for rows in each.values())] for name in names)
    return table(["ms per step (ratio to NumPyro)", *each], rows) + source(
        contents[0], "`, `python benchmarks/".join(commands)
    )


def step_time_of_others() -> str:
    """Other batch sizes and other models."""
    batches, models = results("step_time_batches"), results("step_time_models")
    commands = (
        f"step_time.py --models mlp --batch 32 512 2048 4096 --rounds {batches['rounds']} --json FILE",
        f"step_time.py --models flow conv --rounds {models['rounds']} --json FILE",
    )
    return step_times([batches, models], commands)


def step_time_avx512() -> str:
    """Batch sizes and models on a machine with AVX-512 and AMX."""
    contents = [results(f"avx512/step_time_{name}") for name in ("batches", "mlp", "models")]
    works = "--models mlp --batch 32 512 2048", "--models mlp", "--models flow conv"
    commands = [
        f"step_time.py {work} --rounds {content['rounds']} --json FILE"
        for work, content in zip(works, contents, strict=True)
    ]
    return step_times(contents, commands)


def time_to_quality(recipe: str) -> str:
    """Seconds until log p(x) is good enough, with one recipe, the fastest first."""
    content = results(f"time_to_quality_{recipe}")
    rows = content["results"][recipe]
    titles = {"same": "", "own": "own example's recipe"}
    others = {("own", BY_HAND): "by hand (PyTorch's example)"}
    head = [titles[recipe], "seconds", "seconds of training", "epochs", "log p(x)"]

    def cells(name: str) -> list[str]:
        runs = rows[name]["runs"]
        seconds, training, log_px = ([run[key] for run in runs] for key in ("seconds", "training_seconds", "log_px"))
        numbers = spread(seconds, ".1f"), f"{median(training):.1f}", str(runs[0]["epochs"]), spread(log_px, ".2f")
        return [others.get((recipe, name), name), *numbers]

    fastest = sorted(rows, key=lambda name: median(run["seconds"] for run in rows[name]["runs"]))
    epochs, names = " ".join(map(str, content["epochs"])), " ".join(f'"{name}"' for name in rows)
    options = f"--rounds {content['rounds']} --epochs {epochs} --test-images {content['test_images']} --only {names}"
    command = f"time_to_quality.py --recipes {recipe} {options} --json FILE"
    return table(head, map(cells, fastest)) + source(content, command)


def scaling() -> str:
    """How the time of a step grows."""
    content = results("scaling")
    titles = {
        "batch": "batches of",
        "latent": "latent size",
        "particles": "particles",
        "images": "images in the data set",
    }

    def cells(axis: str, title: str) -> list[str]:
        rows = [row for row in content["rows"] if row["axis"] == axis]
        times = (format(median(milliseconds(row)), "#.3g").rstrip(".") for row in rows)
        return [f"{title} {' / '.join(str(row[axis]) for row in rows)}", " / ".join(times)]

    rounds = len(content["rows"][0]["seconds_per_step"])
    command = f"scaling.py --compile graph --rounds {rounds} --json FILE"
    return table(["", "ms per step"], (cells(*item) for item in titles.items())) + source(content, command)


def several_processes() -> str:
    """Two processes against one."""
    content = results("several_processes")
    rows = (
        [str(row["batch"]), *(f"{row[key]:,.0f} images/s" for key in ("one", "two")), f"{row['ratio']:.2f}"]
        for row in content["rows"]
    )
    head = ["images per step", "one process", "two processes", "ratio"]
    return table(head, rows) + source(content, "several_processes.py --json FILE")


def fit_overhead() -> str:
    """What fit costs, compared with bare steps."""
    content = results("fit_overhead")
    titles = {
        "fit": "a tensor",
        "fit, with a folder": "a tensor, with `out=`",
        "fit, DataLoader, 0 workers": "`DataLoader` of a `TensorDataset`, no workers",
        "fit, DataLoader, 2 workers": "`DataLoader` of a `TensorDataset`, two workers",
        "fit, files, 0 workers": "`IterableDataset` of `.npy` files, no workers",
        "fit, files, 2 workers": "`IterableDataset` of `.npy` files, two workers",
    }
    rows = ([titles[row["what"]], *(f"{row[key]:.2f}" for key in ("to_epoch", "to_step"))] for row in content["rows"])
    settings = content["settings"]
    options = f"--images {settings['images']} --rounds {settings['rounds']} --workers 0 2 --stream 0 2"
    head = ["data", "/ `SVI.epoch`", "/ a loop of `SVI.step`"]
    return table(head, rows) + source(content, f"fit_overhead.py {options} --json FILE")


def loader_time() -> str:
    """An epoch over a DataLoader of tensors, against Pyro's loop."""
    content = results("loader_time")
    batches = list(dict.fromkeys(row["batch"] for row in content["rows"]))
    found = {(row["what"], row["batch"]): row for row in content["rows"]}

    def cell(what: str, batch: int) -> str:
        row = found[what, batch]
        low, high = row["range"]
        return f"{row['ms']:.1f} ms, {row['to_pyro']:.2f} ({low:.2f} to {high:.2f})"

    whats = dict.fromkeys(row["what"] for row in content["rows"])
    rows = [[what, *(cell(what, batch) for batch in batches)] for what in whats]
    settings = content["settings"]
    options = f"--images {settings['images']} --rounds {settings['rounds']}"
    head = ["time of a step, and its ratio to Pyro's loop", *(f"batches of {batch}" for batch in batches)]
    return table(head, rows) + source(content, f"loader_time.py {options} --json FILE")


def reproduced(*, in_short: bool = False) -> str:
    """Papers' log p(x), and ours: by the protocol of the paper, and by estimate; of all rows, or of five."""
    path = ROOT / "benchmarks" / "reproduce" / "papers.py"
    spec = spec_from_file_location("papers", path)
    papers = module_from_spec(spec)
    spec.loader.exec_module(papers)
    found = {path.stem: json.loads(path.read_text()) for path in sorted((RESULTS / "reproduce").glob("*.json"))}

    def cells(name: str) -> list[str]:
        paper, row = papers.PAPERS[name], found.get(name, {})
        about = [f"`{name}`: {paper.model}", f"{TITLES[paper.data]}, {paper.test}", f"{paper.log_prob:.2f}"]
        if "protocol" not in row:
            return [*about, "not run here", "", "", ""]
        protocol, above = row["protocol"], row.get("estimate")
        number = f"{protocol['log_prob']:.2f}"
        is_reproduced = protocol["log_prob"] >= paper.log_prob - NEAR
        log_prob = ""
        if above is not None:
            mean, error = protocol["log_prob"] + above["above_protocol"], above["above_protocol_error"]
            log_prob = f">= {mean:.2f}" if error is None else f"{mean:.2f} +- {error:.2f}"
            log_prob += f" ({above['images']} images)" if above["images"] < protocol["images"] else ""
        minutes = f"{row['train']['cpu_seconds'] / 60:.0f}"
        layers = row["activity"]["layers"].values() if "activity" in row else []
        active = ", ".join(f"{layer['active']} of {layer['units']}" for layer in layers)
        return [*about, f"**{number}**" if is_reproduced else number, log_prob, minutes, active]

    head = ["row", "data and binarization", "paper", "ours, by the paper's protocol", "ours, by `estimate`", "minutes"]
    if in_short:
        return table(head, [cells(name)[: len(head)] for name in IN_SHORT])
    machine = next(iter(found.values()))["train"]["machine"]
    rows = map(cells, papers.PAPERS)
    return table([*head, "active units"], rows) + source({"machine": machine}, "reproduce ROW --data FOLDER")


TABLES = {
    "reproduced": reproduced,
    "reproduced_in_short": lambda: reproduced(in_short=True),
    "step_time_in_short": step_time_in_short,
    "step_time": step_time,
    "step_time_of_others": step_time_of_others,
    "step_time_avx512": step_time_avx512,
    "time_to_quality_same": lambda: time_to_quality("same"),
    "time_to_quality_own": lambda: time_to_quality("own"),
    "scaling": scaling,
    "several_processes": several_processes,
    "fit_overhead": fit_overhead,
    "loader_time": loader_time,
}


def filled(text: str) -> str:
    """A page with its tables as the results say."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]]()}\n{block[3]}", text)


def pages() -> list[Path]:
    """The Markdown files that have tables of results, but not the page that ``write`` makes."""
    docs = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "benchmarks.md"]
    found = ROOT / "README.md", ROOT / "benchmarks" / "README.md", *docs
    return [path for path in found if BLOCK.search(path.read_text())]


def write(folder: Path) -> None:
    """Writes the pages of the site: ``benchmarks.md``, and a folder ``results`` with what the benchmarks have written.

    Args:
        folder: The source folder of the site.
    """
    (folder / "results").mkdir(exist_ok=True)
    names = [path.stem for path in sorted(RESULTS.glob("*.md"))]
    for name in names:
        text, picture = (RESULTS / f"{name}.md").read_text(), RESULTS / f"{name}.png"
        if picture.exists():
            shutil.copy(picture, folder / "results")
            title, _, rest = text.partition("\n")
            text = f"{title}\n\n![{title.strip('# ')}]({picture.name})\n{rest}"
        _write_if_new(folder / "results" / f"{name}.md", text)
    text = filled((ROOT / "benchmarks" / "README.md").read_text())
    contents = "\n".join(f"results/{name}" for name in names)
    _write_if_new(folder / "benchmarks.md", f"{text}\n```{{toctree}}\n:hidden:\n\n{contents}\n```\n")


def _write_if_new(path: Path, text: str) -> None:
    """Keeps the time of a file that has this text, so that Sphinx does not read it again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


if __name__ == "__main__":
    for path in pages():
        _write_if_new(path, filled(path.read_text()))
