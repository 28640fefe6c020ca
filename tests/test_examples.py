"""The examples on parts, as a user runs them, at a small size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_swap_parts(tmp_path):
    sizes = ["--epochs", 1, "--images", 300, "--test-images", 10, "--num-samples", 20]
    result = run("swap_parts.py", *sizes, "--device", "cpu", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert len(rows) == 10
    for name, row in rows.items():
        assert name in result.stdout
        assert row["elbo"] < row["log_px"] < -50


def test_swap_parts_explains_itself(tmp_path):
    for arguments, message in (
        (["--only", "nothing"], "--only nothing: there are standard normal prior"),
        (["--epochs", "0"], "argument --epochs: '0' is not an integer of at least 1"),
        (["--binarized", tmp_path / "nowhere"], "nowhere"),
    ):
        result = run("swap_parts.py", *arguments, "--out", tmp_path)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_a_part_of_ones_own_is_short_and_works():
    source = (EXAMPLES / "my_own_part.py").read_text()
    part = source[source.index("class Spiral") : source.index("def main")].rstrip()
    assert len(part.splitlines()) < 15
    result = run("my_own_part.py")
    assert result.returncode == 0, result.stderr
    log_px = [float(line.split("= ")[1].split(" ")[0]) for line in result.stdout.splitlines()]
    assert len(log_px) == 2
    assert all(-190 < value < -100 for value in log_px)  # a VAE that ignores z has -206
