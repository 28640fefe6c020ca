"""What a release says about itself is the same everywhere, and the tested versions are those that the package allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pyro_vae

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def constraints(name):
    """The versions in a file of .ci: several where they depend on the version of Python or the system."""
    found = {}
    for line in (ROOT / ".ci" / name).read_text().splitlines():
        package, version = re.fullmatch(r"([\w.-]+)==([\w.]+)(?: ; .*)?", line).groups()
        found.setdefault(package, []).append(tuple(map(int, re.findall(r"\d+", version))))
    return found


def lower_bounds(*others):
    """The lower bound of each direct dependency, with those of the extra for tests, and of others."""
    extras = PROJECT["optional-dependencies"]
    inner = next(re.findall(r"pyro-vae\[(.*)\]", each)[0] for each in extras["test"] if each.startswith("pyro-vae["))
    lines = [*PROJECT["dependencies"], *extras["test"]]
    lines += [line for name in (*inner.split(","), *others) for line in extras[name]]
    for line in lines:
        if not line.startswith("pyro-vae["):
            package, version = re.match(r"([\w-]+)(?:>=|==)([\d.]+)", line).groups()
            yield package, tuple(map(int, version.split(".")))


def test_version_and_date_agree():
    (version, date) = re.findall(
        r"^## (\d\S*) - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )[0]
    citation = (ROOT / "CITATION.cff").read_text()
    assert version == pyro_vae.__version__
    assert f"\nversion: {version}\n" in citation
    assert f"\ndate-released: {date}\n" in citation
    # Hatch and the workflow for releases read this line.
    assert f'__version__ = "{version}"' in (ROOT / "pyro_vae" / "__init__.py").read_text().splitlines()


def test_every_dependency_has_a_lower_bound_and_is_tested_with_it():
    oldest, bounds = constraints("constraints-oldest.txt"), list(lower_bounds())
    assert len(bounds) > 30
    for package, bound in bounds:
        (version,) = oldest[package]
        assert version[: len(bound)] == bound, package


def test_newest_versions_are_allowed():
    newest = constraints("constraints-newest.txt")
    for package, bound in lower_bounds("docs"):
        assert min(newest[package]) >= bound, package


def test_files_of_versions_name_no_address():
    for name in ("constraints-oldest.txt", "constraints-newest.txt"):
        text = (ROOT / ".ci" / name).read_text()
        assert "/" not in text.replace("'/", "")
        assert "://" not in text


def test_classifiers_are_pythons_that_are_required():
    least = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    named = [re.fullmatch(r"Programming Language :: Python :: (3)\.(\d+)", each) for each in PROJECT["classifiers"]]
    versions = [tuple(map(int, match.groups())) for match in named if match]
    assert versions[0] == least
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert all(f'"{major}.{minor}"' in workflow for major, minor in versions)
