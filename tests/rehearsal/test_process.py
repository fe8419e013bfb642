"""The emulator's process: who gets in and who does not, what is left of it, what comes back."""

import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from devtools.errors import KitError
from devtools.rehearsal import ACCOUNT, CONTAINER, processes, session
from devtools.rehearsal.container_runner import LABEL, ContainerRunner
from devtools.rehearsal.report import status
from devtools.rehearsal.store import Store
from devtools.settings import ROOT
from tests.rehearsal.raw import Arm

WORKSPACE = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rehearsal/providers/"
    "Microsoft.MachineLearningServices/workspaces/rehearsal"
)


@pytest.fixture
def home(tmp_path):
    """A home of the test's own; whatever runs there is ended."""
    home = tmp_path / "a home"
    yield home
    session.end(home)


def group(home) -> list[int]:
    """The processes that the emulator of a home started."""
    store = Store(home / "state.db")
    try:
        return [int(key) for key, _ in store.all(processes.KIND)]
    finally:
        store.close()


def test_it_is_ready_within_five_seconds_and_ends_with_all_it_started(home):
    begun = time.monotonic()
    assert session.ensure_up(home)
    assert time.monotonic() - begun < 5
    started = group(home)
    # (MLflow may be on its way still)
    assert len(started) >= 2
    assert all(processes.born(pid) for pid in started)
    assert session.end(home)
    assert not any(processes.born(pid) for pid in started)
    assert session.running(home) is None
    assert not session.end(home)


def test_state_survives_a_restart_and_so_do_tokens_and_ports(home):
    session.ensure_up(home)
    before = session.environment(home)
    store = Store(home / "state.db")
    store.put("things", "kept", {"name": "kept"})
    facts = session.running(home)
    session.end(home)
    session.ensure_up(home)
    after = session.running(home)
    assert session.environment(home) == before
    assert after["pid"] != facts["pid"]
    assert {name: after[name] for name in ("proxy_port", "registry_port")} == {
        name: facts[name] for name in ("proxy_port", "registry_port")
    }
    assert store.get("things", "kept") == {"name": "kept"}
    store.close()


def test_a_state_that_cannot_be_taken_up_is_said_with_its_way_out(home):
    store = Store(home / "state.db")
    store.put("computes", "broken", {"name": "broken"})
    store.close()
    with pytest.raises(KitError, match=r"computes left in .* cannot be taken up .*: phikit rehearsal reset"):
        session.ensure_up(home)
    assert group(home) == []


def test_two_that_want_it_at_once_get_the_same_one(home):
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda _: session.ensure_up(home), range(4)))
    assert sorted(started) == [False, False, False, True]


def test_a_second_server_of_the_same_home_is_refused(home):
    session.ensure_up(home)
    second = subprocess.run(
        [sys.executable, "-m", "devtools.rehearsal.server", str(home)], cwd=ROOT, capture_output=True, text=True
    )
    assert second.returncode == 1
    assert second.stdout.strip() == f"error: {home}: another rehearsal runs there (phikit rehearsal status)"
    assert session.running(home)


def test_what_a_killed_one_left_is_ended_by_the_next_one(home):
    session.ensure_up(home)
    left = group(home)
    os.kill(session.running(home)["pid"], signal.SIGKILL)
    while session.running(home):
        time.sleep(0.02)
    assert any(processes.born(pid) for pid in left)
    assert session.ensure_up(home)
    assert not any(processes.born(pid) for pid in left)
    assert session.running(home)


@pytest.mark.docker
def test_containers_of_a_killed_one_are_ended_by_the_next_one(home, engine, runtime_image):
    session.ensure_up(home)
    started = ContainerRunner(engine, home, lambda image: None).start(
        f"left-{os.getpid()}", image=runtime_image, command=["sleep", "60"], environment={}
    )
    os.kill(session.running(home)["pid"], signal.SIGKILL)
    while session.running(home):
        time.sleep(0.02)
    assert started.is_alive()
    session.ensure_up(home)
    assert not started.is_alive()


def test_down_ends_what_a_killed_one_left(home):
    session.ensure_up(home)
    left = group(home)
    os.kill(session.running(home)["pid"], signal.SIGKILL)
    while session.running(home):
        time.sleep(0.02)
    assert session.end(home)
    assert not any(processes.born(pid) for pid in left)


def test_a_terminate_while_it_starts_leaves_nothing(home):
    home.mkdir()
    process = subprocess.Popen([sys.executable, "-m", "devtools.rehearsal.server", str(home)], cwd=ROOT, stdout=-1)
    while not (home / "azurite.log").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    said, _ = process.communicate(timeout=30)
    assert said in (b"", b"ready\n")
    assert group(home) == []
    assert session.running(home) is None


def test_one_that_is_about_to_end_is_waited_for(home):
    session.ensure_up(home)
    first = session.running(home)["pid"]
    os.kill(first, signal.SIGTERM)
    while session.running(home):
        time.sleep(0.01)
    assert session.ensure_up(home)
    assert session.running(home)["pid"] != first


def test_a_port_that_is_taken_is_named(home):
    session.ensure_up(home)
    port = session.running(home)["registry_port"]
    session.end(home)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(KitError, match=f"port {port}, .* is taken"):
        session.ensure_up(home)
    assert group(home) == []
    # the proxy's may be another one
    store = Store(home / "state.db")
    proxy = store.get("ports", "proxy")["port"]
    store.close()
    with socket.create_server(("127.0.0.1", proxy)):
        session.ensure_up(home)
    assert session.running(home)["proxy_port"] != proxy


def test_reset_removes_a_rehearsal_and_nothing_else(home):
    assert not session.reset(home)
    session.ensure_up(home)
    assert session.reset(home)
    assert not home.exists()
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    with pytest.raises(KitError, match="holds something else than a rehearsal"):
        session.reset(home)
    assert (home / "thesis.txt").exists()


@pytest.mark.docker
def test_reset_removes_the_images_that_were_built(home, engine, runtime_image):
    session.ensure_up(home)
    for name, whose in (("mine", home), ("other", home / "other")):
        dockerfile = io.BytesIO(f"FROM phikit-runtime:cpu\nLABEL name={name}\n".encode())
        engine.images.build(fileobj=dockerfile, tag=f"phikit-test-{name}", labels={LABEL: str(whose)})
    session.reset(home)
    try:
        assert not engine.images.list("phikit-test-mine")
        assert engine.images.list("phikit-test-other")
    finally:
        engine.images.remove("phikit-test-other")


def test_only_its_owner_may_look_into_the_home(rehearsal):
    assert rehearsal.home.stat().st_mode & 0o777 == 0o700


def test_every_other_host_is_refused_and_named(signed_in):
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get("https://example.com/", timeout=10)
    proxy = session.running(signed_in.home)["proxy_port"]
    for target in ("example.com:443", "management.azure.com:80", "management.azure.com.example.com:443"):
        status_line, body = connect(proxy, f"CONNECT {target} HTTP/1.1\r\n\r\n")
        assert status_line == "HTTP/1.1 403 Forbidden"
        assert body == f"phikit rehearsal: {target}: is no host that the rehearsal stands for; it goes no further\n"
    assert "host refused: management.azure.com:80 (1 times)" in status(signed_in.home)


def test_plain_http_is_refused(rehearsal):
    proxy = session.running(rehearsal.home)["proxy_port"]
    status_line, body = connect(
        proxy, "GET http://management.azure.com/ HTTP/1.1\r\nHost: management.azure.com\r\n\r\n"
    )
    assert status_line == "HTTP/1.1 403 Forbidden"
    assert "http://management.azure.com is unreachable" in body
    assert any(line.startswith("host refused: management.azure.com:80 (") for line in status(rehearsal.home))
    status_line, body = connect(proxy, "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert status_line == "HTTP/1.1 405 Method Not Allowed"
    assert "takes CONNECT (https) alone" in body


def test_a_real_metadata_service_is_not_asked(signed_in):
    imds = "http://169.254.169.254/metadata/identity/oauth2/token"
    answer = requests.get(imds, headers={"Metadata": "true"}, timeout=10)
    assert answer.status_code == 403
    assert "host refused: 169.254.169.254:80 (1 times)" in status(signed_in.home)


def connect(port: int, head: str) -> tuple[str, str]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return answer.partition("\r\n")[0], answer.partition("\r\n\r\n")[2]


def test_a_call_that_nobody_answers_names_itself(signed_in):
    answer = Arm().get(f"{WORKSPACE}/not-emulated")
    assert answer.status_code == 501
    assert answer.json()["error"] == {
        "code": "NotEmulated",
        "message": f"GET https://management.azure.com{WORKSPACE}/not-emulated: the rehearsal does not know this call",
    }
    assert "not emulated: GET https://management.azure.com/W/not-emulated (1 times)" in status(signed_in.home)


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        (WORKSPACE.replace("01/res", "99/res"), "SubscriptionNotFound", "The subscription '00000000-0000-0000-0000-0"),
        (WORKSPACE.replace("Groups/rehearsal", "Groups/other"), "ResourceGroupNotFound", "Resource group 'other'"),
        (WORKSPACE.replace("spaces/rehearsal", "spaces/other"), "ResourceNotFound", "workspaces/other' under resource"),
    ],
)
def test_what_the_path_names_has_to_be_there(signed_in, path, code, message):
    answer = Arm().get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == code
    assert message in answer.json()["error"]["message"]


def test_names_do_not_tell_upper_from_lower_case(signed_in):
    assert Arm().get(WORKSPACE.upper()).json()["name"] == "rehearsal"


def test_a_call_takes_milliseconds(signed_in):
    arm = Arm()

    def seconds() -> float:
        begun = time.perf_counter()
        assert arm.get(WORKSPACE).status_code == 200
        return time.perf_counter() - begun

    assert statistics.median(seconds() for _ in range(21)) < 0.02


def test_the_service_can_be_out_of_time(signed_in):
    arm = Arm()
    for name, code in (("throttle", 429), ("unavailable", 503)):
        signed_in.refuse(name, times=2, seconds=7)
        answers = [arm.get(WORKSPACE) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [code, code, 200]
        assert answers[0].headers["Retry-After"] == "7"


def test_a_role_can_be_missing(signed_in):
    arm = Arm()
    signed_in.refuse("role", on="computes/write")
    assert arm.get(WORKSPACE).status_code == 200
    assert arm.put(f"{WORKSPACE}/environments/any/versions/1", {"properties": {"image": "a"}}).status_code != 403
    refused = arm.put(f"{WORKSPACE}/computes/any", {})
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "AuthorizationFailed"
    action = "'Microsoft.MachineLearningServices/workspaces/computes/write' over scope"
    assert action in refused.json()["error"]["message"]


def test_it_really_is_azurite_and_mlflow(signed_in):
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import ContainerClient

    address = f"https://{ACCOUNT}.blob.core.windows.net/{CONTAINER}"
    with pytest.raises(HttpResponseError) as refused:
        ContainerClient.from_container_url(f"{address}?sv=2021-12-02&sr=c&sp=r&se=2099-01-01&sig=bm8%3D").exists()
    assert refused.value.status_code == 403
    mlflow = signed_in.store.get("ports", "mlflow")["port"]
    deadline = time.monotonic() + 60
    while True:
        try:
            assert requests.get(f"http://127.0.0.1:{mlflow}/version", timeout=5).status_code == 200
            break
        except requests.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_program_that_cannot_be_had_is_said_in_one_line(tmp_path):
    # (no Node.js on this path, so no Azurite)
    path = {"PATH": "/nowhere", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "devtools.rehearsal.server", str(tmp_path / "home")],
        cwd=ROOT,
        env=path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == (
        "error: the rehearsal's storage is Azurite, which needs Node.js: install it (nodejs.org), with npm\n"
    )
    assert group(tmp_path / "home") == []


def test_facts_that_cannot_be_read_count_as_none(tmp_path):
    (tmp_path / "running.json").write_text("{")
    assert session.running(tmp_path) is None
    (tmp_path / "running.json").write_text(json.dumps({"pid": os.getpid(), "born": "another"}))
    assert session.running(tmp_path) is None
