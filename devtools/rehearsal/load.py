"""A constant load on a managed endpoint until it is told to stop: how many answers, how many failures, and which.

phikit azure connect -- python -m devtools.rehearsal.load    # until Ctrl-C or SIGTERM

It prints `asking` once the first answer is there, and one line of JSON at the end. Each client asks again as soon as it
is answered, and never tries again after a failure: what people see, counted.
"""

from __future__ import annotations

import json
import signal
import statistics
import threading
import time
from collections import Counter
from typing import Any

import httpx

from devtools.errors import BadInput
from devtools.settings import Settings

CLIENTS = 2
QUESTION = {"input_data": ["Who founded Microsoft?"], "params": {"max_new_tokens": 16}}
#: Seconds for one answer.
TIMEOUT = 60
#: What it says when the first answer is there.
BEGUN = "asking"


class Load:
    """Clients that ask until `stop` is set; what came of it."""

    def __init__(self, uri: str, key: str) -> None:
        self.stop = threading.Event()
        self._uri = uri
        self._headers = {"Authorization": f"Bearer {key}"}
        self._seconds: list[float] = []
        self._failures: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self, clients: int = CLIENTS) -> dict[str, Any]:
        """Ask with so many clients at once until stopped.

        Returns `answered`, `failed`, `failures` (what, how often), and the median and the longest answer in seconds.
        """
        threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {
            "answered": len(self._seconds),
            "failed": self._failures.total(),
            "failures": dict(self._failures),
            "median": round(statistics.median(self._seconds), 3) if self._seconds else None,
            "longest": round(max(self._seconds), 3) if self._seconds else None,
        }

    def _ask(self) -> None:
        # proxy and certificate come from the environment, as for any other client
        with httpx.Client(timeout=TIMEOUT, headers=self._headers) as client:
            while not self.stop.is_set():
                begun = time.monotonic()
                problem = self._problem(client)
                with self._lock:
                    if problem:
                        self._failures[problem] += 1
                    else:
                        self._seconds.append(time.monotonic() - begun)
                        if len(self._seconds) == 1:
                            print(BEGUN, flush=True)

    def _problem(self, client: httpx.Client) -> str | None:
        """What is wrong with the answer to one request, None when nothing is."""
        try:
            answer = client.post(self._uri, json=QUESTION)
            if answer.status_code != 200:
                return f"status {answer.status_code}: {answer.text[:120]}"
            texts = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            return f"{type(error).__name__}: {error}"[:160]
        return None if isinstance(texts, list) and len(texts) == 1 else f"no list of one answer: {answer.text[:120]}"


def main() -> None:
    """Ask the endpoint that PHIKIT_ENDPOINT_URI and PHIKIT_ENDPOINT_KEY name; see the module."""
    settings = Settings.load()
    if not settings.endpoint_uri or not settings.endpoint_key:
        raise BadInput("PHIKIT_ENDPOINT_URI, PHIKIT_ENDPOINT_KEY: are not set; start this through phikit azure connect")
    load = Load(settings.endpoint_uri, settings.endpoint_key)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: load.stop.set())
    print(json.dumps(load.run()), flush=True)


if __name__ == "__main__":
    main()
