"""The report of a run: `report.html` (one file, nothing loaded from elsewhere), `loss_curve.png`, the closing table.

make local-train && xdg-open runs/latest/report.html
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation import Evaluation, compare

METRICS = ("loss", "perplexity", "exact_match", "token_f1")


def loss_curve(history: Sequence[Mapping[str, Any]], target: Path) -> None:
    """Draw the trainer's log as a PNG: training loss, evaluation loss and learning rate over steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    held_out = [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]
    rate = [(entry["step"], entry["learning_rate"]) for entry in history if "learning_rate" in entry]
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.grid(alpha=0.3)
    for points, label, style in ((train, "train", "-"), (held_out, "held out", "o--")):
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=3)
    if rate:
        right = axes.twinx()
        right.plot(*zip(*rate, strict=True), ":", color="gray", label="learning rate")
        right.set_ylabel("learning rate")
    if train or held_out:
        axes.legend(loc="upper right")
    partial = target.with_name(f".{target.name}")
    figure.savefig(partial, dpi=120, format="png")
    partial.replace(target)


def write_report(
    target: Path, title: str, before: Evaluation, after: Evaluation, facts: Mapping[str, Any], curve: Path
) -> None:
    """Write the HTML page: the table, the curve, all answers side by side, changed ones first, and the facts."""
    from jinja2 import Environment, FileSystemLoader

    better, worse = compare(before.answers, after.answers)
    same = sorted(set(range(len(after.answers))) - set(better) - set(worse))
    page = (
        Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
        .get_template("report.html.j2")
        .render(
            title=title,
            rows=[(name, getattr(before, name), getattr(after, name)) for name in METRICS],
            groups=[("Better", better), ("Worse", worse), ("Unchanged", same)],
            before=before.answers,
            after=after.answers,
            facts=facts,
            curve=base64.b64encode(curve.read_bytes()).decode(),
        )
    )
    partial = target.with_name(f".{target.name}")
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)


def print_table(before: Evaluation, after: Evaluation) -> None:
    """The run's last words: the four numbers before and after, and how many answers changed."""
    from rich.console import Console
    from rich.table import Table

    better, worse = compare(before.answers, after.answers)
    table = Table(title=f"{len(after.answers)} held-out questions", title_justify="left")
    table.add_column("")
    for name in ("before", "after"):
        table.add_column(name, justify="right")
    for name in METRICS:
        table.add_row(name.replace("_", " "), f"{getattr(before, name):.4g}", f"{getattr(after, name):.4g}")
    table.add_row("better / worse", "", f"{len(better)} / {len(worse)}")
    Console().print(table)
