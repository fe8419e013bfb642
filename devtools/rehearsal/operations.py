"""Long-running operations: work that goes on after the answer, and what its state is when somebody asks.

    def put(call):
        return call.rehearsal.operations.begin("create compute cpu", lambda: provision(...), body=compute, status=201)

A client polls Azure-AsyncOperation every second and fetches the resource again once it says Succeeded.
"""

from __future__ import annotations

import threading
import traceback
import uuid
from collections.abc import Callable
from typing import Any

from devtools.rehearsal import LOCATION, MANAGEMENT_HOST, SUBSCRIPTION
from devtools.rehearsal.store import Store
from devtools.rehearsal.wire import Answer, Call, Route, WireError, missing

KIND = "operations"
PATH = "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}"
#: Seconds between two looks of the client.
POLL = 1
#: What an operation ends with when the emulator ended before it.
INTERRUPTED = "OperationInterrupted"


class Operations:
    """All operations, running and ended."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads: dict[str, threading.Thread] = {}
        for key, body in store.all(KIND):
            # (its thread went with the process; what it was to make says for itself how far it came)
            if body["status"] == "InProgress":
                error = {"code": INTERRUPTED, "message": f"{body['name']}: the service was restarted"}
                store.put(KIND, key, body | {"status": "Failed", "error": error})

    def begin(self, name: str, work: Callable[[], None], *, body: Any = None, status: int = 202) -> Answer:
        """Start work in a thread of its own and answer where its state is asked for.

        Args:
            name: what is being done, for people.
            work: raises WireError where the service would say that the operation failed.
            body: the resource as it is now, for answers of a PUT (201, or 200 where it was there).
            status: 202, or that of a PUT.
        """
        key = uuid.uuid4().hex
        self._store.put(KIND, key, {"name": name, "status": "InProgress"})

        def run() -> None:
            ended: dict[str, Any] = {"status": "Succeeded"}
            try:
                work()
            except WireError as error:
                ended = {"status": "Failed", "error": error.answer().body["error"]}
            except Exception as error:
                traceback.print_exc()
                ended = {"status": "Failed", "error": {"code": "InternalServerError", "message": repr(error)}}
            self._store.put(KIND, key, {"name": name} | ended)

        self._threads[key] = threading.Thread(target=run, name=name, daemon=True)
        self._threads[key].start()
        base = "https://" + MANAGEMENT_HOST + PATH.format(subscription=SUBSCRIPTION, location=LOCATION)
        headers = {
            "Azure-AsyncOperation": f"{base}/mfeOperationsStatus/{key}?api-version=2023-04-01-preview",
            "Location": f"{base}/mfeOperationResults/{key}?api-version=2023-04-01-preview",
            "Retry-After": str(POLL),
        }
        return Answer(status, body, headers)

    def settled(self, seconds: float) -> bool:
        """Wait for everything that is in progress; whether it ended in time."""
        for thread in list(self._threads.values()):
            thread.join(seconds)
        return not any(thread.is_alive() for thread in self._threads.values())

    def state(self, key: str) -> dict[str, Any] | None:
        """`status` and, of a failed one, `error`."""
        return self._store.get(KIND, key)


def status(call: Call) -> Answer:
    """How an operation stands."""
    key = call.params["operation"]
    found = call.rehearsal.operations.state(key)
    if found is None:
        raise missing("Operation", key)
    body = {"id": call.path, "name": key, "status": found["status"]}
    if "error" in found:
        body["error"] = found["error"]
    # (a client that is not told when to look again waits for half a minute)
    return Answer(200, body, {"Retry-After": str(POLL)} if found["status"] == "InProgress" else {})


def result(call: Call) -> Answer:
    """The same for clients that follow Location: 202 while it goes on, then nothing, or the error."""
    found = call.rehearsal.operations.state(call.params["operation"])
    if found is None:
        raise missing("Operation", call.params["operation"])
    if found["status"] == "InProgress":
        return Answer(202, None, {"Location": f"https://{call.host}{call.path}", "Retry-After": str(POLL)})
    if "error" in found:
        return Answer(400, {"error": found["error"]})
    return Answer(204)


ROUTES = [
    Route("GET", MANAGEMENT_HOST, PATH + "/mfeOperationsStatus/{operation}", status),
    Route("GET", MANAGEMENT_HOST, PATH + "/mfeOperationResults/{operation}", result),
]
