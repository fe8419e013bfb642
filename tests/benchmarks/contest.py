"""Contenders in one run: they take turns, and each one's median counts. A table with the ratio ends it.

from contest import Result, table
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """A measured ratio, what it compares, and the least (with `at_most`: the most) that the kit promises."""

    what: str
    measured: float
    promised: float | None = None
    at_most: bool = False

    @property
    def kept(self) -> bool:
        """Whether the promise, if there is one, is kept."""
        if self.promised is None:
            return True
        return self.measured <= self.promised if self.at_most else self.measured >= self.promised

    def row(self) -> str:
        """One line of the table."""
        bound = "" if self.promised is None else f"{'at most' if self.at_most else 'at least'} {self.promised:g}"
        verdict = "" if self.promised is None else ("kept" if self.kept else "NOT KEPT")
        return f"{self.what:<72} {self.measured:>8.3g}  {bound:<14} {verdict}"


def median(values: Sequence[float]) -> float:
    """The median: one slow turn on a busy machine does not move it."""
    return statistics.median(values)


def table(title: str, results: Sequence[Result]) -> None:
    """Print the results."""
    print(f"\n{title}\n{'-' * len(title)}")
    for result in results:
        print(result.row())
