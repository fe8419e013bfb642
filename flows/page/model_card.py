"""Which model answers: its name, its run, how it scored before and after fine-tuning, and the run's report.

    python -c 'from flows.page.model_card import read; from pathlib import Path; print(read(Path("runs/latest")))'

Reads what a run's folder holds (run.json, metrics.json, report.html, model/MLmodel); whatever is missing is left out.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
    unreadable: str = ""
    """The folder that this page's user may not read."""


def served(newest: Path, name: str) -> tuple[Card, str]:
    """The card of the run that the scoring server serves, and the newest run's name where that is another.

    Args:
        newest: the newest run's folder; the others are beside it.
        name: the served run's; empty where the server does not say.
    """
    card = read(newest)
    if not name or name == card.run or Path(name).name != name or name.startswith("."):
        return card, ""
    other = read(newest.resolve().parent / name)
    return (other if other.run else Card(run=name)), card.run


def read(run: Path) -> Card:
    """The card of a run's folder; an empty one where there is none."""
    folder = run.absolute()
    try:
        folder = run.resolve(strict=True)
        next(folder.iterdir(), None)
        metrics = _json(folder / "metrics.json")
        made = _metadata(folder / "model" / "MLmodel")
        report = folder / "report.html"
        shown = report if report.is_file() else None
    except PermissionError as error:
        return Card(run=folder.name, unreadable=str(error.filename or folder))
    except OSError:
        return Card()
    before, after = _object(metrics.get("before")), _object(metrics.get("after"))
    return Card(
        run=folder.name,
        model=str(made.get("model") or ""),
        metrics=tuple(
            (label, float(before[name]), float(after[name]))
            for name, label in METRICS.items()
            if isinstance(before.get(name), int | float) and isinstance(after.get(name), int | float)
        ),
        report=shown,
    )


def as_html(card: Card, newest: str = "") -> str:
    """The card as one line of HTML, and a second where the newest run is not served; every value is escaped."""
    if card.unreadable:
        return (
            f'<p class="card">{escape(card.unreadable)} cannot be read by user {os.geteuid()}: let everybody read it, '
            "or set <code>PHIKIT_COMPOSE_USER</code> to its owner</p>"
        )
    if not card.run:
        return '<p class="card">No finished run is shown here; train one with <code>make local-train</code></p>'
    parts = [f"<strong>{escape(card.model or 'model')}</strong>", f"run <b>{escape(card.run)}</b>"]
    parts += [f"{escape(name)} {before:.0%} → <b>{after:.0%}</b>" for name, before, after in card.metrics]
    if card.report:
        parts.append(f'<a href="report?run={quote(card.run)}" target="_blank" rel="noopener">report</a>')
    line = f'<p class="card">{" · ".join(parts)}</p>'
    if newest:
        line += (
            f'<p class="card">The scoring server still serves {escape(card.run)}; <code>make up</code> (or '
            f"<code>make serve</code>) again serves {escape(newest)}.</p>"
        )
    return line


def _json(file: Path) -> dict[str, Any]:
    try:
        return _object(json.loads(file.read_text(encoding="utf-8")))
    except PermissionError:
        raise
    except (OSError, ValueError):
        return {}


def _metadata(file: Path) -> dict[str, Any]:
    try:
        return _object(_object(yaml.safe_load(file.read_text(encoding="utf-8"))).get("metadata"))
    except PermissionError:
        raise
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
