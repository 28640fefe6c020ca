"""The model card: architecture, training data, log p(x), and code that loads the model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from pyro_vae.saving.model_folder import LIBRARY
from pyro_vae.saving.yaml_text import to_yaml

CARD = "README.md"
TAGS = ("pyro", "pytorch", "variational-autoencoder")
_MARK = "<!-- Written by pyro_vae, which overwrites this file. To keep changes of your own, delete this line. -->"


def model_card(
    vae: nn.Module,
    name: str,
    *,
    reason: str = "",
    evidence: Any = None,
    data: str | None = None,
    settings: Mapping[str, Any] | None = None,
    pictures: Sequence[str] = (),
    license: str | None = None,  # noqa: A002  # the name that the Hub has for it
    tags: Iterable[str] = (),
) -> str:
    """A model card in Markdown, with the metadata of the Hugging Face Hub in front.

    Args:
        vae: The model.
        name: Its name: ``user/name`` on the Hub, or the name of its folder.
        reason: Why it cannot be rebuilt from its files; empty if it can.
        evidence: An estimate of log p(x): an object with ``mean``, ``mean_error`` and ``summary()``.
        data: The data, in words.
        settings: The settings of training, by name.
        pictures: The names of picture files beside the card.
        license: The identifier of a licence, such as ``"mit"``.
        tags: More tags.

    Raises:
        TypeError: If the evidence is of another type.
    """
    head: dict[str, Any] = {"library_name": LIBRARY, "tags": [*TAGS, *tags]}
    if license is not None:
        head["license"] = license
    sections = {
        "Use": _use(vae, name, reason),
        "Data": data or "Not stated.",
        "Architecture": _architecture(vae),
    }
    if settings:
        rows = [(key, value) for key, value in settings.items() if value not in (None, [], ())]
        sections["Settings"] = _table(("setting", "value"), rows)
    if evidence is not None:
        mean, error = _mean_of(evidence)
        if math.isfinite(mean):
            head["model-index"] = _model_index(name, data or "not stated", mean, error)
        sections["Evidence"] = f"{_in_words(mean, error)}\n\n{_block(evidence.summary())}"
    if pictures:
        sections["Pictures"] = "\n\n".join(f"![{each.partition('.')[0]}](<{each}>)" for each in pictures)
    words = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    about = f"A `{type(vae).__name__}` made with `{LIBRARY}`: a variational autoencoder whose log p(x) has error bars."
    return f"---\n{to_yaml(head)}---\n\n{_MARK}\n\n# {_one_line(name)}\n\n{about}\n\n{words}\n"


def is_generated(card: str) -> bool:
    """Whether a card may be overwritten: it was generated, and not marked as changed, or has no text."""
    body = card.split("---", 2)[-1] if card.startswith("---") else card
    return _MARK in card or not body.strip()


def _use(vae: nn.Module, name: str, reason: str) -> str:
    class_name = type(vae).__name__
    if reason:
        load = f"vae = load({json.dumps(name)}, vae=make_vae())  # make_vae: your code that makes the same parts"
        text = f"A part is not from this library ({reason}). Loading the model needs the code of this part:\n\n"
        return text + _block(f"from {LIBRARY} import load\n\n{load}", "python")
    lines = [
        f"from {LIBRARY} import {class_name}",
        "",
        f"vae = {class_name}.from_pretrained({json.dumps(name)})  # a name on the Hugging Face Hub, or a folder",
    ]
    return _block("\n".join(lines), "python")


def _architecture(vae: nn.Module) -> str:
    parts = [
        (name, type(part).__name__, f"{sum(each.numel() for each in part.parameters()):,}")
        for name, part in vae.named_children()
    ]
    total = f"{sum(parameter.numel() for parameter in vae.parameters()):,}"
    return f"{_table(('part', 'class', 'parameters'), [*parts, ('total', '', total)])}\n\n{_block(repr(vae))}"


def _mean_of(evidence: Any) -> tuple[float, float]:
    """The mean of log p(x) and the half-width of its interval, in nats per datapoint."""
    if not all(hasattr(evidence, name) for name in ("mean", "mean_error", "summary")):
        raise TypeError(f"evidence is of type {type(evidence).__name__}; expected a result of evidence.estimate")
    return float(evidence.mean), float(evidence.mean_error)


def _in_words(mean: float, error: float) -> str:
    if math.isfinite(error):
        decimals = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 3  # two digits of the error
        numbers = f"{mean:.{decimals}f} ± {error:.{decimals}f}"
        return f"log p(x) = {numbers} nats per datapoint (95%, bias included)."
    return f"log p(x) >= {mean:.2f} nats per datapoint: a lower bound on average; its error is not known."


def _model_index(name: str, data: str, mean: float, error: float) -> list[Any]:
    words = f"± {error:.2g}, 95%" if math.isfinite(error) else "a lower bound"
    metric = {"type": "log-likelihood", "value": mean, "name": f"log p(x), nats per datapoint ({words})"}
    task = {"type": "density-estimation", "name": "Density estimation"}
    dataset = {"type": "-".join(re.findall(r"\w+", data.lower())) or "data", "name": data}
    return [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": [metric]}]}]


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(_one_line(each).replace("|", "\\|") for each in row) + " |" for row in cells)


def _block(text: str, language: str = "") -> str:
    """A block of code, in more backticks than the text has."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())
