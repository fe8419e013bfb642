"""What is wrong with a dataset: bad rows with their place, gathered while the rest is still being read.

Used by dataset.py and prepare_data.py; see it at work with `python training/prepare_data.py check FILE`.
"""

from __future__ import annotations

from collections import Counter

#: Findings kept with their place; further ones are only counted, so that a wholly bad file costs no memory.
LISTED = 1000
#: Findings printed before "and N more".
SHOWN = 20


class BadRow(Exception):
    """One row that cannot be trained on: its kind (for counting), the reason, and what to do about it."""

    def __init__(self, kind: str, reason: str, fix: str) -> None:
        super().__init__(f"{reason}; {fix}")
        self.kind = kind


class Findings:
    """Bad rows and unreadable files, in reading order.

    Bad rows can be dropped (`--on-bad drop`); a file that cannot be read at all cannot.
    """

    def __init__(self) -> None:
        self.files: list[str] = []
        self.rows: list[str] = []
        self.kinds: Counter[str] = Counter()

    @property
    def row_count(self) -> int:
        """How many rows are bad."""
        return self.kinds.total()

    def add_row(self, place: str, problem: BadRow) -> None:
        """Note a bad row; `place` is `file:line`, or `file:row N` where a file has no lines."""
        self.kinds[problem.kind] += 1
        if len(self.rows) < LISTED:
            self.rows.append(f"{place}: {problem}")

    def add_file(self, line: str) -> None:
        """Note that a file cannot be read (further)."""
        self.files.append(line)

    def lines(self, shown: int = SHOWN) -> list[str]:
        """One line a finding, files first, at most `shown` rows and then how many more there are of each kind."""
        lines = [*self.files, *self.rows[:shown]]
        more = self.row_count - min(shown, len(self.rows))
        if more:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common())
            lines.append(f"and {more:,} more bad rows (in all: {kinds})")
        return lines
