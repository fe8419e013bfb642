"""How far the reading is: a bar on a terminal, a line every ten seconds where output goes to a file.

Used by prepare_data.py; see `python training/prepare_data.py check FILE`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from sources import RowSource

#: Rows between two looks at the clock.
STRIDE = 2000
#: Seconds between lines when there is no terminal; a bar is redrawn ten times a second.
QUIET = 10.0

Item = TypeVar("Item")


class ReadingProgress:
    """Follows the reading of several sources on stderr; use it as a context manager."""

    def __init__(self, what: str, sources: Sequence[RowSource]) -> None:
        self.what = what
        self.sources = sources
        self.rows = 0
        self._started = self._shown = time.monotonic()
        self._bar = None

    def __enter__(self) -> ReadingProgress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=sum(source.size for source in self.sources), rate="")
        return self

    def __exit__(self, *failure: object) -> None:
        if self._bar:
            self._bar.stop()

    def follow(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items, counted."""
        for item in items:
            self.rows += 1
            if self.rows % STRIDE == 0:
                self._show()
            yield item

    def _show(self) -> None:
        now = time.monotonic()
        rate = self.rows / max(now - self._started, 1e-9)
        done, size = sum(source.done for source in self.sources), sum(source.size for source in self.sources)
        if self._bar:
            self._bar.update(self._task, completed=done, rate=f"{self.rows:,} conversations, {rate:,.0f}/s")
        elif now - self._shown >= QUIET:
            self._shown = now
            left = (now - self._started) * (size - done) / max(done, 1)
            print(f"{self.what}: {self.rows:,} conversations, {rate:,.0f}/s, about {left:.0f} s left", file=sys.stderr)
