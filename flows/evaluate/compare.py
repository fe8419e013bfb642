"""Means of each model, and the lines whose answers flipped between two.

comparison = compare(lines, {"base": (answers, measures), "tuned": (answers, measures)})
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, tuple[Mapping[int, str], Mapping[int, Mapping[str, float]]]]


@dataclass(frozen=True)
class Row:
    """One line: where it is in the file, what was asked and expected, and each model's answer and measures."""

    line: int
    question: str
    expected: str
    answers: dict[str, str]
    measures: dict[str, dict[str, float]]
    flip: str
    """`better` or `worse` where exact match differs between the first model and the second, else empty."""


@dataclass(frozen=True)
class Comparison:
    """The means by model and measure, and every line that all models answered."""

    means: dict[str, dict[str, float]]
    rows: list[Row]

    @property
    def flipped(self) -> list[Row]:
        """The lines that the second model gets right and the first does not, or the other way round."""
        return [row for row in self.rows if row.flip]


def compare(lines: list[dict[str, Any]], results: Results) -> Comparison:
    """Compare one or two models, the base first, over the lines that each of them answered."""
    models = list(results)
    rows = []
    for place, line in enumerate(lines):
        if any(place not in measures for _, measures in results.values()):
            continue
        measures = {model: dict(results[model][1][place]) for model in models}
        before, after = measures[models[0]]["exact_match"], measures[models[-1]]["exact_match"]
        flip = "better" if after > before else "worse" if after < before else ""
        answers = {model: results[model][0][place] for model in models}
        rows.append(Row(line["line"], line["question"], line["expected"], answers, measures, flip))
    means = {
        model: {name: sum(row.measures[model][name] for row in rows) / len(rows) for name in rows[0].measures[model]}
        for model in (models if rows else ())
    }
    return Comparison(means, rows)
