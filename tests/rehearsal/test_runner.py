"""What jobs and deployments run in: containers and processes, by the same rules."""

import os
import signal
import sys
import time
import urllib.request
import uuid

import pytest

from devtools.errors import BadInput, KitError
from devtools.rehearsal import processes, runner
from devtools.rehearsal.container_runner import LABEL, ContainerRunner
from devtools.rehearsal.process_runner import ProcessRunner
from devtools.rehearsal.processes import Processes
from devtools.rehearsal.runner import Mount
from devtools.rehearsal.store import Store
from devtools.rehearsal.wire import WireError
from devtools.settings import Settings

IMAGE = "phikit-runtime:cpu"
SERVE = "import http.server as h; h.HTTPServer(('0.0.0.0', PORT), h.SimpleHTTPRequestHandler).serve_forever()"
#: Says so once it heard SIGTERM, and ends with 7.
ENDS = "import signal, sys, time; signal.signal(15, lambda *_: (print('heard', flush=True), sys.exit(7)))"


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def made(home):
    store = Store(home / "state.db")
    yield Processes(store)
    store.close()


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def either(request, home, made):
    """A runner of each kind."""
    if request.param == "process":
        found = ProcessRunner(home, made)
    else:
        engine = request.getfixturevalue("engine")
        request.getfixturevalue("runtime_image")
        found = ContainerRunner(engine, home, lambda image: None)
    yield found
    found.end_all()


def begin(found, *command: str, **options):
    name = f"test-{uuid.uuid4().hex[:8]}"
    return found.start(name, image=IMAGE, command=list(command), **({"environment": {}} | options))


@pytest.mark.docker
def test_a_container_that_ends_before_anybody_looked(home, engine, runtime_image):
    found = ContainerRunner(engine, home, lambda image: None)
    try:
        for _ in range(5):
            started = begin(found, "true", port=5001)
            assert started.wait() == 0
            assert b"".join(started.output()) == b""
    finally:
        found.end_all()


def test_output_comes_as_it_is_said_and_the_code_at_the_end(either, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "words").write_text("to be")
    program = (
        "import os, pathlib, sys; print('one', flush=True); print(os.environ['SAID'], file=sys.stderr)\n"
        "text = pathlib.Path('/mnt/in/words').read_text()\n"
        "pathlib.Path(sys.argv[1], 'copy').write_text(text + os.getcwd()); sys.exit(3)"
    )
    started = begin(
        either,
        "python",
        "-c",
        program,
        "/mnt/out",
        environment={"SAID": "two"},
        mounts=[Mount(tmp_path / "in", "/mnt/in", read_only=True), Mount(tmp_path / "out", "/mnt/out")],
        workdir="/mnt/in",
    )
    assert started.wait() == 3
    # (the engine reads the two streams apart: either may be first)
    assert sorted(b"".join(started.output()).split()) == [b"one", b"two"]
    assert not started.is_alive()
    copy = tmp_path / "out" / "copy"
    assert copy.read_text().startswith("to be/")
    assert copy.stat().st_uid == os.getuid()


def test_a_port_leads_to_the_program(either):
    both = [begin(either, "python", "-c", SERVE.replace("PORT", "8099"), port=8099) for _ in range(2)]
    assert len({started.address for started in both}) == 2
    for started in both:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://{started.address}/", timeout=2) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert time.monotonic() < deadline and started.is_alive()
                time.sleep(0.05)
        started.kill()
        assert not started.is_alive()


def test_it_may_end_by_itself_or_is_ended(either):
    gentle = begin(either, "python", "-c", f"{ENDS}; print('on', flush=True); time.sleep(60)")
    output = gentle.output()
    assert next(output).strip() == b"on"
    begun = time.monotonic()
    gentle.stop(20)
    assert time.monotonic() - begun < 15
    assert gentle.wait() == 7
    assert b"heard" in b"".join(output)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    stubborn = begin(either, "python", "-c", deaf)
    assert next(stubborn.output()).strip() == b"on"
    stubborn.stop(1)
    assert stubborn.wait() == 128 + signal.SIGKILL
    # what has ended can be ended again
    stubborn.stop(1)
    stubborn.kill()


def test_a_program_that_is_not_there(home, made):
    with pytest.raises(WireError) as refused:
        begin(ProcessRunner(home, made), "no-such-program")
    assert refused.value.code == "ContainerStartFailed"


@pytest.mark.docker
def test_a_program_that_is_not_in_the_image(engine, runtime_image, home):
    found = ContainerRunner(engine, home, lambda image: None)
    assert begin(found, "no-such-program").wait() == 127
    found.end_all()


def test_the_end_is_the_end_of_all(either):
    running = [begin(either, "python", "-c", "import time; time.sleep(60)") for _ in range(2)]
    assert all(started.is_alive() for started in running)
    either.end_all()
    assert [started.wait() for started in running] == [137, 137]


def test_what_a_process_started_itself_ends_with_it(home, made, tmp_path):
    child = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    started = begin(ProcessRunner(home, made), sys.executable, "-c", child)
    # (the grandchild holds the stream: it ends when that does)
    assert started.wait() == 0
    pid = int(b"".join(started.output()))
    assert processes.wait_gone(pid, processes.born(pid) or "gone", 5)


def test_a_process_without_a_command_has_none(home, made):
    with pytest.raises(WireError, match="name a command, or start an engine"):
        ProcessRunner(home, made).start("none", image=IMAGE, command=None, environment={})


def test_paths_are_rewritten_as_wholes(home, made, tmp_path):
    started = begin(
        ProcessRunner(home, made),
        "sh",
        "-c",
        "echo /mnt/in /mnt/inside /mnt/in/a:/mnt/in/sub/b $PLACE",
        environment={"PLACE": "/mnt/in"},
        mounts=[Mount(tmp_path, "/mnt/in"), Mount(tmp_path / "other", "/mnt/in/sub")],
    )
    assert started.wait() == 0
    said = b"".join(started.output()).decode().strip()
    assert said == f"{tmp_path} /mnt/inside {tmp_path}/a:{tmp_path}/other/b {tmp_path}"


@pytest.mark.docker
def test_containers_of_a_home_are_ended_by_its_next_runner(engine, runtime_image, home):
    first = ContainerRunner(engine, home, lambda image: None)
    other = ContainerRunner(engine, home.with_name("another"), lambda image: None)
    mine, kept = (begin(one, "sleep", "60") for one in (first, other))
    ContainerRunner(engine, home, lambda image: None)
    assert (mine.is_alive(), kept.is_alive()) == (False, True)
    other.end_all()
    assert not engine.containers.list(all=True, filters={"label": f"{LABEL}={home}"})


@pytest.mark.docker
def test_a_container_that_was_waited_for_and_read_is_gone(engine, runtime_image, home):
    started = begin(ContainerRunner(engine, home, lambda image: None), "echo", "done")
    assert b"".join(started.output()) == b"done\n"
    assert started.wait() == 0
    assert not engine.containers.list(all=True, filters={"label": f"{LABEL}={home}"})


@pytest.mark.docker
def test_an_image_that_is_nowhere(engine, home):
    with pytest.raises(WireError) as refused:
        ContainerRunner(engine, home, lambda image: None).pull("localhost:1/nobody/nothing:1")
    assert (refused.value.status, refused.value.code) == (400, "ImagePullFailed")


def test_which_runner_is_chosen(home, made):
    def choose(kind: str | None, host: str | None = None) -> runner.Runner:
        return runner.choose(Settings(rehearsal_runner=kind, docker_host=host), home, made, lambda image: None)

    nowhere = f"unix://{home}/no.sock"
    assert choose("process").kind == "process"
    assert choose(None, nowhere).kind == "process"
    with pytest.raises(KitError, match="no Docker engine answers"):
        choose("docker", nowhere)
    with pytest.raises(BadInput, match="PHIKIT_REHEARSAL_RUNNER=dokcer: is no kind of runner; did you mean docker"):
        choose("dokcer")
