"""The endpoints' own hosts: who is let in, where requests go, what becomes of answers, updates under load.

python -m pytest tests/rehearsal/endpoints/test_scoring.py
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import requests
from azure.ai.ml.entities import OnlineRequestSettings

from tests.rehearsal.endpoints.small_serving import Load, Serving, address
from tests.serving.server import until


@pytest.fixture(scope="module")
def endpoint(serving: Serving) -> str:
    """An endpoint with two deployments: blue has nine tenths of the traffic. Leave it as it is."""
    name = serving.endpoint()
    narrow = OnlineRequestSettings(request_timeout_ms=4000, max_concurrent_requests_per_instance=1)
    serving.deploy(name, "blue")
    serving.deploy(name, "green", request_settings=narrow)
    serving.give(name, blue=90, green=10)
    return name


@pytest.fixture(scope="module")
def key(serving, endpoint) -> str:
    return serving.key(endpoint)


def test_who_is_let_in(serving, endpoint):
    for header, said in (
        ("Bearer wrong", "key_auth_access_denied"),
        ("Bearer ", "key_auth_bad_header_forbidden"),
        ("Basic abc", "key_auth_bad_header_forbidden"),
        (None, "key_auth_bad_header_forbidden"),
    ):
        answer = serving.ask(endpoint, headers={"Authorization": header})
        assert (answer.status_code, answer.text) == (401, said)


def test_an_endpoint_that_is_not_there(serving):
    assert serving.ask("nobody", key="any").status_code == 404


def test_traffic_is_drawn_by_its_weights(serving, endpoint, key):
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: serving.ask(endpoint, key=key), range(300)))
    told = Counter(answer.json()["answer"] for answer in answers)
    assert told.total() == 300
    assert Counter(answer.headers["azureml-model-deployment"] for answer in answers) == told
    # 30 of them are expected: 5 and fewer, or 65 and more, come once in a hundred million times
    assert 5 < told["green"] < 65


def test_a_header_names_the_deployment(serving, endpoint, key):
    assert serving.ask(endpoint, key=key, deployment="green").json()["answer"] == "green"
    assert serving.ask(endpoint, key=key, deployment="GREEN").json()["answer"] == "green"
    assert serving.ask(endpoint, key=key, deployment="nobody").status_code == 404


def test_an_endpoint_without_traffic(serving):
    name = serving.endpoint()
    assert serving.ask(name).status_code == 404
    serving.deploy(name)
    assert serving.ask(name).status_code == 404
    assert serving.ask(name, deployment="blue").status_code == 200
    serving.ml.online_endpoints.begin_delete(name).result()


@pytest.mark.parametrize("status", [201, 400, 429, 503])
def test_an_answer_other_than_200_is_a_model_error(serving, endpoint, key, status):
    answer = serving.ask(endpoint, {"status": status}, key=key, deployment="blue")
    assert answer.status_code == 424
    assert answer.headers["ms-azureml-model-error-statuscode"] == str(status)
    assert answer.headers["ms-azureml-model-error-reason"] == "model_error"
    assert answer.headers["X-Own"] == "kept"
    assert answer.json()["answer"] == "blue"


def test_headers(serving, endpoint, key):
    answer = serving.ask(endpoint, key=key, headers={"x-ms-client-request-id": "abc-1", "X-Mine": "yes"})
    assert answer.headers["x-ms-client-request-id"] == "abc-1"
    assert len(answer.headers["x-request-id"]) == 36
    received = {name.lower(): value for name, value in answer.json()["headers"].items()}
    assert received["x-mine"] == "yes"
    # the key is the front door's own
    assert key not in str(received)


def test_other_paths_go_through_as_they_are(serving, endpoint, key):
    answer = serving.ask(endpoint, key=key, path="/v1/models?limit=2&a=%C3%A4", method="GET", deployment="blue")
    assert answer.json() == {"path": "/v1/models?limit=2&a=%C3%A4"}


def test_a_request_that_takes_too_long(serving, endpoint, key):
    begun = time.monotonic()
    answer = serving.ask(endpoint, {"wait": 20}, key=key, deployment="green")
    assert (answer.status_code, answer.text) == (408, "upstream request timeout")
    assert 3 < time.monotonic() - begun < 15


def test_too_many_requests_at_once(serving, endpoint, key):
    # one at once, and one that waits
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: serving.ask(endpoint, {"wait": 2}, key=key, deployment="green"), range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429]
    (refused,) = [answer for answer in answers if answer.status_code == 429]
    assert refused.headers["ms-azureml-model-error-reason"] == "too_many_pending_request"
    assert serving.ask(endpoint, key=key, deployment="green").status_code == 200


def headers(key: str, deployment: str = "blue") -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "azureml-model-deployment": deployment}


def test_pieces_of_an_answer_come_as_they_are_made(endpoint, key):
    arrived: list[tuple[float, bytes]] = []
    with (
        httpx.Client(timeout=30) as client,
        client.stream("POST", address(endpoint), headers=headers(key), json={"pieces": 4, "pause": 0.3}) as answer,
    ):
        assert answer.headers["content-type"] == "text/event-stream"
        for piece in answer.iter_raw():
            arrived.append((time.monotonic(), piece))
    assert b"".join(piece for _, piece in arrived) == b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n"
    assert arrived[-1][0] - arrived[0][0] > 0.6


def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(serving, key, endpoint):
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ = serving.ask(endpoint, {"pieces": 3, "break_off": True}, key=key, deployment="blue").content
    # nor one whose time is over
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ = serving.ask(endpoint, {"pieces": 100, "pause": 0.3}, key=key, deployment="green").content
    until(lambda: serving.ask(endpoint, key=key, deployment="blue").status_code == 200, "it is started again")


def test_who_hangs_up_makes_room(serving, endpoint, key):
    # (green takes two at once)
    for _ in range(2):
        with pytest.raises(httpx.ReadTimeout):
            patience = httpx.Timeout(10, read=0.5)
            httpx.post(address(endpoint), headers=headers(key, "green"), json={"wait": 20}, timeout=patience)
    until(lambda: serving.ask(endpoint, key=key, deployment="green").status_code == 200, "there is room", 3.0)


def test_mirrored_traffic(serving, endpoint):
    name = serving.endpoint()
    serving.deploy(name, "blue")
    serving.deploy(name, "shadow")
    found = serving.ml.online_endpoints.get(name)
    found.traffic, found.mirror_traffic = {"blue": 100}, {"shadow": 50}
    serving.ml.online_endpoints.begin_create_or_update(found).result()
    path = f"{serving.id_of(name)}/deployments/shadow/providers/Microsoft.Insights/metrics"
    key = serving.key(name)
    assert {serving.ask(name, key=key).json()["answer"] for _ in range(40)} == {"blue"}

    def mirrored() -> float:
        told = serving.arm.get(path).json()["value"][0]["timeseries"][0]["data"]
        return sum(minute["average"] for minute in told)

    # 20 are expected: fewer than three come once in a hundred million times
    until(lambda: mirrored() >= 3, "copies arrive")
    serving.ml.online_endpoints.begin_delete(name).result()


def test_no_request_fails_while_deployments_come_and_go(serving):
    name = serving.endpoint()
    serving.deploy(name, "blue", variables={"ANSWER": "first"})
    serving.give(name, blue=100)
    with Load(serving, name) as load:
        until(lambda: load.told["first"] > 20, "the load is on")
        # in place
        serving.deploy(name, "blue", variables={"ANSWER": "second"})
        until(lambda: load.told["second"] > 20, "the new one answers")
        # beside each other, then the old one goes
        serving.deploy(name, "green", variables={"ANSWER": "third"})
        for share in (10, 50, 100):
            serving.give(name, blue=100 - share, green=share)
        serving.ml.online_deployments.begin_delete("blue", name).result()
        until(lambda: load.told["third"] > 60, "the other one answers")
    assert load.failures == []
    assert set(load.told) == {"first", "second", "third"}
    serving.ml.online_endpoints.begin_delete(name).result()


def test_requests_in_flight_are_answered_before_a_deployment_goes(serving):
    name = serving.endpoint()
    serving.deploy(name)
    key = serving.key(name)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: serving.ask(name, {"wait": 3}, key=key, deployment="blue"))
        until(lambda: serving.ask(name, key=key, path="/busy", method="GET", deployment="blue").json(), "it is there")
        serving.ml.online_deployments.begin_delete("blue", name).result()
        assert answer.done()
        assert answer.result().status_code == 200
    serving.ml.online_endpoints.begin_delete(name).result()


def test_every_request_is_written_down(serving, rehearsal, endpoint, key):
    serving.ask(endpoint, {"status": 503, "note": "this one"}, key=key, deployment="blue")

    def noted() -> list[dict]:
        calls = [call for call in rehearsal.calls() if call["host"].startswith(endpoint)]
        return [call for call in calls if (call["request"] or {}).get("note") == "this one"]

    until(lambda: noted(), "it is written down")
    (call,) = noted()
    assert (call["status"], call["path"], call["emulated"]) == (424, "/score", True)
