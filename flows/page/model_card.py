"""Which model answers: its name, its run, how it scored before and after fine-tuning, and the run's report.

    python -c 'from flows.page.model_card import read; from pathlib import Path; print(read(Path("runs/latest")))'

Reads what a run's folder holds (run.json, metrics.json, report.html, model/MLmodel); whatever is missing is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml

#: The metrics on the card, by their names in metrics.json.
METRICS = {"exact_match": "exact match", "token_f1": "token F1"}


@dataclass(frozen=True)
class Card:
    """What is known of the model."""

    run: str = ""
    model: str = ""
    metrics: tuple[tuple[str, float, float], ...] = ()
    """(name, before, after), shares from 0 to 1."""
    report: Path | None = None


def read(run: Path) -> Card:
    """The card of a run's folder; an empty one where there is none."""
    folder = run.resolve()
    report = folder / "report.html"
    metrics = _json(folder / "metrics.json")
    before, after = _object(metrics.get("before")), _object(metrics.get("after"))
    made = _metadata(folder / "model" / "MLmodel")
    return Card(
        run=folder.name if folder.is_dir() else "",
        model=str(made.get("model") or ""),
        metrics=tuple(
            (label, float(before[name]), float(after[name]))
            for name, label in METRICS.items()
            if isinstance(before.get(name), int | float) and isinstance(after.get(name), int | float)
        ),
        report=report if report.is_file() else None,
    )


def as_html(card: Card) -> str:
    """The card as one line of HTML; every value in it is escaped."""
    if not card.run:
        return '<p class="card">No finished run is shown here; train one with <code>make local-train</code></p>'
    parts = [f"<strong>{escape(card.model or 'model')}</strong>", f"run <b>{escape(card.run)}</b>"]
    parts += [f"{escape(name)} {before:.0%} → <b>{after:.0%}</b>" for name, before, after in card.metrics]
    if card.report:
        parts.append('<a href="report" target="_blank" rel="noopener">report</a>')
    return f'<p class="card">{" · ".join(parts)}</p>'


def _json(file: Path) -> dict[str, Any]:
    try:
        return _object(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _metadata(file: Path) -> dict[str, Any]:
    try:
        return _object(_object(yaml.safe_load(file.read_text(encoding="utf-8"))).get("metadata"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
