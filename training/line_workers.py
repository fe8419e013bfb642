"""Several processes that judge the rows of one large JSON lines file, in its order.

Used by prepare_data.py; `--workers 1` does without. A worker takes a piece of whole lines and gives back finished
lines, so that the first process only tells duplicates and writes.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from checks import Judged, judge_rows
from errors import RunFailed
from row_files import JsonLinesFile, lines_of, parse_lines
from sources import RowSource

#: Bytes of a piece: some hundred rows, and about 30 ms of work.
PIECE = 1 << 20
#: Below this size, in bytes, a file is done before the processes have started.
WORTHWHILE = 32 << 20
#: More would wait for the first process, at some 40 MiB each.
MOST = 4


class LineWorkers:
    """Processes that start when they are first needed; use it as a context manager."""

    def __init__(self, count: int = 0) -> None:
        """`count` 0: one a core that this process may use, MOST at most; 1: none."""
        self.count = count or min(_cores(), MOST)
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> LineWorkers:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._executor:
            self._executor.shutdown(cancel_futures=True)

    def can_read(self, source: RowSource) -> bool:
        """Whether the source is large enough, and of the kind, to be read here."""
        return self.count > 1 and isinstance(source, JsonLinesFile) and source.size >= WORTHWHILE

    def judge(self, source: RowSource, columns: Mapping[str, str] | None) -> Iterator[Judged]:
        """What judge_rows says about the rows of a JSON lines file, in their order, a few pieces ahead.

        Raises RunFailed when a process is killed.
        """
        assert isinstance(source, JsonLinesFile)
        if self._executor is None:
            # not forked: a copy of this process would keep its files open after it has been killed
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.count, context, initializer=_end_with_parent)
        pending: deque[Future[list[Judged]]] = deque()
        try:
            for first, piece in source.chunks(PIECE):
                pending.append(self._executor.submit(judge_piece, first, piece, columns))
                if len(pending) > 2 * self.count:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except BrokenProcessPool:
            raise RunFailed(
                f"{source.name}: a reading process was killed, perhaps for memory; try --workers 1"
            ) from None


def judge_piece(first: int, piece: bytes, columns: Mapping[str, str] | None) -> list[Judged]:
    """What judge_rows says about a piece of whole lines, of which the first has this number."""
    return list(judge_rows(parse_lines(lines_of(io.BytesIO(piece)), first), columns))


def _end_with_parent() -> None:
    """Leave Ctrl-C to the first process, and end when it does, even when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
