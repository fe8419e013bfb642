"""What requests came of: counted by endpoint and deployment for the metrics, while the emulator runs.

counters.note("phikit", "blue", status=200, model_status=200, seconds=0.4)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

#: Requests that are remembered.
KEPT = 50_000


@dataclass(frozen=True)
class Sample:
    """One request."""

    at: float
    """Seconds since the epoch, when it was answered."""
    endpoint: str
    deployment: str
    """Empty where none was found for it."""
    status: int
    """The endpoint's answer."""
    model_status: int | None
    """The container's answer; None: it gave none."""
    seconds: float


class Counters:
    """The newest requests of all endpoints."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def note(self, endpoint: str, deployment: str, *, status: int, model_status: int | None, seconds: float) -> None:
        """Count one request."""
        with self._lock:
            self._samples.append(Sample(time.time(), endpoint, deployment, status, model_status, seconds))

    def between(self, endpoint: str, deployment: str | None, start: float, end: float) -> list[Sample]:
        """The requests of an endpoint, or of one of its deployments, that were answered in this time."""
        with self._lock:
            found = list(self._samples)
        return [
            one
            for one in found
            if start <= one.at < end
            and one.endpoint.lower() == endpoint.lower()
            and (deployment is None or one.deployment.lower() == deployment.lower())
        ]
