"""Long-running operations, asked after over HTTP as clients do."""

import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from devtools.rehearsal.errors import WireError, bad_request, render
from devtools.rehearsal.operations import Operations
from devtools.rehearsal.store import Store

PATH = "/subscriptions/s/things/t"


@pytest.fixture
def place(tmp_path):
    store = Store(tmp_path / "store.db")
    yield store
    store.close()


class Service:
    """An app with one resource that is made by a long-running operation."""

    def __init__(self, store, work, **answer):
        self.operations = Operations(store, "eastus2")

        def make(request):
            return self.operations.start(request, PATH, work, **answer)

        routes = [Route("/subscriptions/{subscription}/things/t", make, methods=["PUT"]), *self.operations.routes()]
        self.client = TestClient(
            Starlette(routes=routes, exception_handlers={WireError: render}), base_url="https://management.azure.com"
        )

    def ended(self, answer):
        deadline = time.monotonic() + 10
        while (state := self.client.get(answer.headers["azure-asyncoperation"]).json())["status"] == "InProgress":
            assert time.monotonic() < deadline
        return state


def test_it_is_in_progress_then_succeeds_and_location_answers_its_result(place):
    go = threading.Event()
    service = Service(place, lambda: go.wait(10) and {"name": "t"}, status=201, body={"name": "t"})
    answer = service.client.put(PATH)
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (201, {"name": "t"}, "1")
    assert answer.headers["location"].startswith("https://management.azure.com/subscriptions/s/")
    assert service.client.get(answer.headers["azure-asyncoperation"]).json()["status"] == "InProgress"
    assert service.client.get(answer.headers["location"]).status_code == 202
    assert service.operations.running(PATH.upper())
    assert service.client.put(PATH).status_code == 409
    go.set()
    assert service.ended(answer)["status"] == "Succeeded"
    assert service.client.get(answer.headers["location"]).json() == {"name": "t"}
    assert not service.operations.running(PATH)


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [(bad_request("no cores left"), "UserError", 400), (RuntimeError("a fault"), "InternalServerError", 500)],
)
def test_a_failure_is_told_at_both_addresses(place, error, code, status):
    service = Service(place, lambda: fail(error))
    answer = service.client.put(PATH)
    state = service.ended(answer)
    assert (state["status"], state["error"]["code"]) == ("Failed", code)
    result = service.client.get(answer.headers["location"])
    assert (result.status_code, result.json()["error"]["code"]) == (status, code)
    # and it can be tried again
    assert service.client.put(PATH).status_code == 202


def test_work_without_a_result_ends_in_204(place):
    service = Service(place, lambda: None)
    answer = service.client.put(PATH)
    service.ended(answer)
    assert service.client.get(answer.headers["location"]).status_code == 204


def test_what_a_restart_found_unfinished_has_failed(place):
    stuck = threading.Event()
    service = Service(place, lambda: stuck.wait(20))
    answer = service.client.put(PATH)
    again = Service(place, lambda: None)
    state = again.client.get(answer.headers["azure-asyncoperation"]).json()
    assert (state["status"], state["error"]["code"]) == ("Failed", "OperationInterrupted")
    stuck.set()
    service.operations.join(10)


def test_an_unknown_operation_is_not_found(place):
    service = Service(place, lambda: None)
    path = "/subscriptions/s/providers/Microsoft.MachineLearningServices/locations/eastus2/mfeOperationsStatus/x"
    assert service.client.get(path).status_code == 404
