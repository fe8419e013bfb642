"""Tables for people on a terminal, and the same as tab-separated lines for programs and logs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

STYLES = {
    "ok": "green",
    "finished": "green",
    "warn": "yellow",
    "unfinished": "yellow",
    "running": "cyan",
    "fail": "red",
}


def show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of plain text under their columns; without a terminal, one tab-separated line a row and no header."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def score(metrics: dict[str, Any], when: str) -> str:
    """The exact match before or after, as a table shows it."""
    value = metrics.get(when, {}).get("exact_match") if isinstance(metrics.get(when), dict) else None
    return f"{value:.3f}" if isinstance(value, int | float) else "-"
