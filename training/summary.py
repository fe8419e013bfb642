"""What was read, kept and dropped, and how long the conversations are: as text and as summary.json.

Used by prepare_data.py; see it with `python training/prepare_data.py check data`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from checks import Conversation
from dataset import Checker

BAR = 40
#: Widths of a histogram's bars, in tokens; the narrowest that needs no more than ROWS bars is taken.
WIDTHS = [step * 10**power for power in range(1, 7) for step in (1, 2, 5)]
ROWS = 12


class Summary:
    """Counts over the kept conversations; memory grows with the number of different lengths only."""

    def __init__(self) -> None:
        self.layouts: Counter[str] = Counter()
        self.kept = 0
        self.lengths: Counter[int] = Counter()
        self.turns = 0

    def add(self, conversation: Conversation) -> None:
        """Count one conversation."""
        self.layouts[conversation.layout] += 1
        self.kept += 1
        self.lengths[conversation.tokens] += 1
        self.turns += conversation.turns

    def quantile(self, part: float) -> int:
        """The length, in tokens, that this part of the conversations does not exceed."""
        before = 0
        for length in sorted(self.lengths):
            before += self.lengths[length]
            if before >= part * self.kept:
                return length
        return 0

    def histogram(self) -> list[tuple[int, int, int]]:
        """(shortest, longest, conversations) of each bar, in tokens."""
        if not self.lengths:
            return []
        longest = max(self.lengths)
        width = next((width for width in WIDTHS if longest <= width * ROWS), WIDTHS[-1])
        bars: Counter[int] = Counter()
        for length, count in self.lengths.items():
            bars[max(length - 1, 0) // width] += count
        return [(bar * width + 1, (bar + 1) * width, bars[bar]) for bar in range(max(bars) + 1)]

    def as_json(self, checker: Checker) -> dict[str, Any]:
        """The counts for summary.json."""
        total = sum(length * count for length, count in self.lengths.items())
        return {
            "rows": {
                "read": checker.rows_read,
                "kept": self.kept,
                "dropped": checker.findings.row_count,
                "dropped_by_reason": dict(checker.findings.kinds.most_common()),
            },
            "layouts": dict(self.layouts.most_common()),
            "turns": self.turns,
            "tokens": {
                "counted_by": "tokenizer" if checker.count_tokens else "estimate",
                "limit": checker.max_tokens or None,
                "total": total,
                "median": self.quantile(0.5),
                "p95": self.quantile(0.95),
                "longest": max(self.lengths, default=0),
                "histogram": [
                    {"from": low, "to": high, "conversations": count} for low, high, count in self.histogram()
                ],
            },
        }

    def text(self, checker: Checker) -> Iterator[str]:
        """The lines to print."""
        counts = self.as_json(checker)
        rows, tokens = counts["rows"], counts["tokens"]
        yield f"rows      {rows['read']:,} read, {rows['kept']:,} good, {rows['dropped']:,} bad"
        for kind, count in rows["dropped_by_reason"].items():
            yield f"          {count:,} {kind}"
        yield "layout    " + (", ".join(f"{name} {count:,}" for name, count in counts["layouts"].items()) or "none")
        about = "" if checker.count_tokens else ", estimated"
        yield (
            f"tokens    {tokens['total']:,} in {counts['turns']:,} turns{about}; a conversation: "
            f"median {tokens['median']:,}, 95 % up to {tokens['p95']:,}, longest {tokens['longest']:,}"
        )
        bars = self.histogram()
        most = max((count for *_, count in bars), default=1)
        digits = len(f"{bars[-1][1]:,}") if bars else 1
        for low, high, count in bars:
            bar = "█" * round(BAR * count / most) or ("▏" if count else "")
            yield f"  {low:>{digits},} to {high:>{digits},}  {bar:<{BAR}}  {count:,}"
