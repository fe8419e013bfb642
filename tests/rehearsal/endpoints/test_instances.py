"""A container of a deployment and whoever looks after it, when something breaks that nobody thought of."""

import threading
from dataclasses import replace

import pytest

from devtools.rehearsal.endpoints import plan
from devtools.rehearsal.endpoints.instance import FAILED, Instance
from devtools.rehearsal.endpoints.journal import Journal
from devtools.rehearsal.endpoints.plan import Plan, Probe
from devtools.rehearsal.process_runner import ProcessRunner
from devtools.rehearsal.processes import Processes
from devtools.rehearsal.store import Store
from devtools.rehearsal.wire import WireError

PROBE = Probe(path="/", initial_delay=0, period=1, timeout=1, success_threshold=1, failure_threshold=3)
PLAN = Plan(
    image="small",
    source={},
    environment={},
    model=None,
    code=None,
    port=5001,
    scoring="/score",
    liveness=PROBE,
    readiness=PROBE,
    instances=1,
    concurrent=1,
    timeout=5,
)


@pytest.fixture
def runner(tmp_path):
    store = Store(tmp_path / "state.db")
    found = ProcessRunner(tmp_path, Processes(store))
    yield found
    found.end_all()
    store.close()


def test_a_start_that_breaks_is_a_deployment_that_failed(tmp_path):
    changed = threading.Event()

    def start(name: str):
        raise RuntimeError("the engine went")

    instance = Instance("small-0", PLAN, start, Journal(tmp_path), changed.set)
    instance.begin()
    assert changed.wait(30)
    assert (instance.state, instance.why) == (FAILED, "RuntimeError: the engine went")


def test_what_runs_ends_with_whoever_looks_after_it(tmp_path, runner):
    changed, made = threading.Event(), []

    def start(name: str):
        made.append(runner.start(name, image="", command=["sleep", "600"], environment={}, port=5001))
        return made[0]

    # (a length that no waiting takes)
    broken = replace(PLAN, liveness=replace(PROBE, initial_delay=None))
    instance = Instance("small-0", broken, start, Journal(tmp_path), changed.set)
    instance.begin()
    assert changed.wait(30)
    assert instance.state == FAILED
    assert made[0].wait() == 137


@pytest.mark.parametrize(("told", "path"), [("score", "/score"), ("/v1/chat", "/v1/chat"), (None, "/score")])
def test_a_route_begins_with_a_slash_whatever_the_environment_says(told, path):
    routes = plan._routes({"inferenceConfig": {"scoringRoute": {"path": told, "port": 5001}}})
    assert routes["scoringRoute"] == (path, 5001)


def test_a_port_that_is_no_number(tmp_path):
    with pytest.raises(WireError, match="no number"):
        plan._routes({"inferenceConfig": {"livenessRoute": {"path": "/", "port": "http"}}})
