"""A copy of a trained model, small and with a card, which ``pyro_vae.load`` and ``pyro-vae`` take."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pyro_vae import load
from pyro_vae.saving.pretrained import save_with_card
from pyro_vae.saving.versions import versions


def options(paper: dict[str, Any]) -> dict[str, str]:
    """How the command line reads the test images of a row."""
    if paper["test"] == "fixed":
        return {"data": "binarized_mnist", "binarize": "none"}
    return {"data": paper.get("data", "mnist"), "binarize": "dynamic"}  # older results do not name the data


def log_prob(found: dict[str, Any]) -> tuple[float, float]:
    """log p(x) of all test images and its error, in nats; the error is infinite if it is not known."""
    above, error = (found["estimate"][name] for name in ("above_protocol", "above_protocol_error"))
    return found["protocol"]["log_prob"] + above, math.inf if error is None else error


def share(found: dict[str, Any], run: Path, out: Path) -> None:
    """Writes the model of a run, and its card with the numbers that were found."""
    paper, protocol = found["paper"], found["protocol"]
    lines = [
        f"log p(x) in the paper: {paper['log_prob']:.2f} ({paper['source']})",
        f"by the same protocol:  {protocol['log_prob']:.2f} ({protocol['num_samples']} samples from the guide)",
        f"test images:           {protocol['images']}",
    ]
    evidence = None
    if "estimate" in found:
        mean, error = log_prob(found)
        lines.append(f"by evidence.estimate:  {mean:.2f} ({found['estimate']['images']} of these images)")
        evidence = SimpleNamespace(mean=mean, mean_error=error, summary=lambda: "\n".join(lines))
    data = options(paper)
    settings = {name: value for name, value in found["train"]["settings"].items() if name not in ("train", "valid")}
    save_with_card(load(run), out, None, [], evidence=evidence, data=data["data"], settings=settings)
    command = {"command": "train", "options": data, "versions": versions()}
    (out / "command.json").write_text(json.dumps(command, indent=2) + "\n")
