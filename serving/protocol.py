"""uvicorn's HTTP protocol with patience: a client that begins a request and falls silent is answered 408 and let go;
one that does not take its answer is let go as it is.

uvicorn itself waits for both for ever; bodies are the gate's (serving/gate.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

ANSWER = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def patient(seconds: float) -> type[H11Protocol]:
    """The protocol class that waits `seconds` for a request's header, from the connection or its first byte on, and as
    long for a piece of the answer to be taken."""

    class PatientProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _untaken: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # so that `pause_writing` tells of every piece that the system does not take at once
            transport.set_write_buffer_limits(high=0)
            self._timer = self.loop.call_later(seconds, self._let_go)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._unset()
            elif self._timer is None and not self.transport.is_closing():
                self._timer = self.loop.call_later(seconds, self._let_go)

        def connection_lost(self, exc: Exception | None) -> None:
            self._unset()
            self._unset_untaken()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            # (`close` would wait until all is sent)
            self._untaken = self.loop.call_later(seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._unset_untaken()
            super().resume_writing()

        def _unset(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _unset_untaken(self) -> None:
            if self._untaken is not None:
                self._untaken.cancel()
                self._untaken = None

        def _let_go(self) -> None:
            self._timer = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.write(ANSWER)
                self.transport.close()

    return PatientProtocol
