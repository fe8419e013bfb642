"""Wait for a program while handing it the signals that this process gets: the same rules for every local backend.

The first SIGINT or SIGTERM goes on to the program, which may take its time to save a checkpoint; a second one, or the
end of that time, ends it at once.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Queues SIGINT, SIGTERM and SIGHUP instead of letting them end this process; use it as a context manager.

    Enter it before the program is started, so that no signal falls between start and wait.
    """

    def __init__(self) -> None:
        # SimpleQueue.put may be called from a signal handler that interrupted a get or another put
        self.events: queue.SimpleQueue[signal.Signals | int | Exception] = queue.SimpleQueue()
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            # what is ignored stays ignored: that is how nohup keeps a program alive
            heard = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.events.put(signal.Signals(number))

    def supervise(
        self,
        wait: Callable[[], int],
        send: Callable[[signal.Signals], None],
        kill: Callable[[], None],
        grace: float,
    ) -> int:
        """Return what `wait` returns (it is called in a thread of its own), forwarding signals through `send`.

        `kill` is called when the program is still there `grace` seconds after the first signal, or at the second one.
        """
        events = self.events

        def wait_in_thread() -> None:
            try:
                events.put(int(wait()))
            except Exception as error:
                events.put(error)

        threading.Thread(target=wait_in_thread, name="wait", daemon=True).start()
        deadline: float | None = None
        stopping = False
        while True:
            try:
                event = events.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                print(f"it is still there after {grace:.0f} s: ending it", file=sys.stderr, flush=True)
                deadline = None
                kill()
                continue
            if isinstance(event, signal.Signals):
                if stopping:
                    kill()
                    continue
                stopping = True
                deadline = time.monotonic() + grace
                print(f"stopping (up to {grace:.0f} s; the same again ends it at once)", file=sys.stderr, flush=True)
                # a terminal that closed asks for the same as a plain kill
                send(signal.SIGTERM if event is signal.SIGHUP else event)
            elif isinstance(event, Exception):
                raise event
            else:
                return event
