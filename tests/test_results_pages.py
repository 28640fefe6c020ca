"""The numbers of the benchmarks in README and docs are those of the files in benchmarks/results."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


results_pages = module(ROOT / "docs" / "results_pages.py")
results = results_pages.results


def test_tables_are_those_of_the_results():
    for path in results_pages.pages():
        text = path.read_text()
        assert results_pages.filled(text) == text, f"{path} is out of date: run python docs/results_pages.py"


def test_every_table_is_on_a_page_and_every_mark_has_its_end():
    texts = [path.read_text() for path in results_pages.pages()]
    blocks = [block for text in texts for block in results_pages.BLOCK.finditer(text)]
    assert {block[2] for block in blocks} == set(results_pages.TABLES)
    assert all(block[0].count("<!-- results") == 1 for block in blocks)
    assert sum(text.count("<!-- results") for text in texts) == len(blocks)


def test_a_number_that_differs_is_found(monkeypatch, tmp_path):
    text = "before\n<!-- results: scaling -->\n<!-- end of results -->\nafter\n"
    once = results_pages.filled(text)
    assert re.fullmatch("before\n.*after\n", once, re.DOTALL)
    assert results_pages.filled(once) == once
    (number,) = re.findall(r"batches of [\d /]+\| ([\d.]+)", once)
    assert results_pages.filled(once.replace(number, "1.00")) == once
    content = results("scaling")
    content["rows"][0]["seconds_per_step"] = [0.0123]
    (tmp_path / "scaling.json").write_text(json.dumps(content))
    monkeypatch.setattr(results_pages, "RESULTS", tmp_path)
    assert "| 12.3 / " in results_pages.filled(once)


def test_numbers_in_sentences():
    guide = results("evidence_accuracy")["problems"]["(iii) the default example, 50 latents"]["rows"][0]
    assert guide["method"] == "guide"
    short, own, same = (results(name) for name in ("step_time_mlp", "time_to_quality_own", "time_to_quality_same"))
    products, half_products = (
        results_pages.median(results_pages.milliseconds(short["results"][0]["rows"][name]))
        for name in ("matrix products", "matrix products, bfloat16")
    )

    def tried(name, epochs):
        (run,) = [run for run in own["results"]["own"][name]["tried"] if run["epochs"] == epochs]
        return f"{name} with {epochs} epochs took {run['seconds']:.1f} s and reached {run['log_px']:.2f}"

    ours = [run["seconds"] for run in same["results"]["same"]["pyro_vae, graph, bfloat16"]["runs"]]
    tables = results("impute_tables")["tables"].values()
    ends = {}
    for method in ("VAE", "chained equations"):
        shares = [sum(row["covered"] for row in rows[method]) / len(rows[method]) for rows in tables]
        ends[method] = f"{min(shares):.0%} to {max(shares):.0%}"
    texts = [(ROOT / "README.md").read_text(), (ROOT / "benchmarks" / "README.md").read_text()]
    texts += [path.read_text() for path in (ROOT / "docs").glob("*.md")]
    text = " ".join(" ".join(texts).split())
    for sentence in (
        f"On this model it is about {-guide['mean_difference']:.1f} nats too low",
        f"medians of {short['rounds']} rounds",
        f"The lower limit is the time of the products: {products:.2f} and {half_products:.2f} ms",
        f"until log p(x) is at least {same['target']:.2f} nats",
        tried("NumPyro", 20),
        tried("by hand", 16),
        f"`pyro_vae` took {results_pages.median(ours):.1f} s for the same work",
        f"The 90% intervals of the VAE contain the truth {ends['VAE']} of the time, "
        f"those of chained equations {ends['chained equations']}.",
    ):
        assert sentence in text, sentence


def test_tables_that_the_benchmarks_write_are_those_of_their_numbers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    written = {"evidence_accuracy": "table", "posterior_families": "table"}
    if importlib.util.find_spec("sklearn"):
        written["impute_tables"] = "table_of"
    for name, function in written.items():
        made = getattr(module(ROOT / "benchmarks" / f"{name}.py"), function)(results(name))
        assert made == (ROOT / "benchmarks" / "results" / f"{name}.md").read_text()


def test_pages_of_the_site(tmp_path):
    results_pages.write(tmp_path)
    text = (tmp_path / "benchmarks.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (tmp_path / target).exists(), target
    listed = re.search(r"```{toctree}\n:hidden:\n\n(.*?)```", text, re.DOTALL)[1].split()
    assert {f"{name}.md" for name in listed} == {
        f"results/{path.name}" for path in (ROOT / "benchmarks" / "results").glob("*.md")
    }
    for name in listed:
        page = (tmp_path / f"{name}.md").read_text()
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page):
            assert (tmp_path / "results" / target).exists()
    assert "evidence_accuracy.png" in (tmp_path / "results" / "evidence_accuracy.md").read_text()
    before = (tmp_path / "benchmarks.md").stat().st_mtime_ns
    results_pages.write(tmp_path)
    assert (tmp_path / "benchmarks.md").stat().st_mtime_ns == before
