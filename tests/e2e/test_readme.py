"""The README, followed on a fresh checkout with no engine, command by command; then the same run in the container."""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.settings import variables
from serving import settings as serving
from tests.serving.containers.stack import PORTS

ROOT = Path(__file__).parents[2]
QUESTION = "Who founded Microsoft?"
ANSWER = "Microsoft was founded by Bill Gates and Paul Allen."
#: What the reader of the README does not run to its end here: the tests are what is running, and the server's line and
#: the requests to it are run together.
SERVE, ASK, TEST = "make serve", "curl ", "make test"
#: What needs an engine, which this reader's machine has not; a test of its own follows them.
UP, DOWN, REHEARSE = "make up", "make down", "make azure-rehearse"


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    return [line for block in blocks for line in block.splitlines() if line]


class Reader:
    """Somebody with a fresh checkout, who types what the README says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("PATH", "HOME", "LANG", "CI")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        # how this machine reaches packages is the machine's affair, not the README's
        kept |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
        self.environment = kept | {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}

    def types(self, command: str, **environment: str) -> subprocess.CompletedProcess:
        """Run a command line to its end."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=1500,
        )


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Reader:
    if os.environ.get("IN_DEVCONTAINER"):
        pytest.skip("NOT TESTED: the dev container's environment is made once, not by a reader; run this outside")
    folder = tmp_path_factory.mktemp("checkout") / "phikit"
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    with (folder / "my_chats.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "answer"])
        rows.writerows([f"What is {n} and {n}, please?", f"It is {2 * n}."] for n in range(60))
        rows.writerow(["A question without an answer", ""])
    return Reader(folder)


def latest(reader: Reader) -> Path:
    return (reader.folder / "runs" / "latest").resolve()


def point(reader: Reader, run: Path) -> None:
    """Make a run the latest one."""
    link = reader.folder / "runs" / "latest"
    link.unlink()
    link.symlink_to(run.name)


def check_sample_run(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["before"]["exact_match"] < 0.05
    assert metrics["after"]["exact_match"] > 0.5
    assert metrics["after"]["loss"] < metrics["before"]["loss"]
    for name in ("report.html", "loss_curve.png", "model/MLmodel"):
        assert (run / name).is_file()
    for model in ("model", "base"):
        # the stack's server reads them as another user
        assert all(path.stat().st_mode & 0o004 for path in (run / model).rglob("*"))
        assert (run / model / "MLmodel").is_file()
    report = (run / "report.html").read_text(encoding="utf-8")
    row = re.search(rf"<td>{re.escape(QUESTION)}</td><td>(.*?)</td><td>(.*?)</td><td[^>]*>(.*?)</td>", report)
    expected, before, after = row.groups()
    assert expected == after == ANSWER
    assert before != ANSWER


def test_every_command_works_in_the_order_of_the_page(reader):
    done = []
    for command in commands():
        if command in (TEST, SERVE, UP, DOWN, REHEARSE) or command.startswith(ASK):
            continue
        result = reader.types(command)
        assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        done.append(command)
        if command == "make local-train":
            assert "virtual environment" in result.stdout + result.stderr
            check_sample_run(latest(reader))
            sample_run = latest(reader)
    assert {"make doctor", "make local-train", "make runs", "make export", "make lint"} <= set(done)
    # the export was judged, and passed
    quality = json.loads((latest(reader) / "model" / "artifacts" / "onnx-int4" / "quality.json").read_text())
    assert quality["passed"] is True
    # the run on own data dropped the bad row and learned the others
    summary = json.loads((reader.folder / "data" / "mine" / "summary.json").read_text())
    assert sum(file["conversations"] for file in summary["files"].values()) == 60
    # the server is asked about the sample, whose model is no longer the latest
    point(reader, sample_run)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(reader) -> Iterator[int]:
    """The README's serving command, on a port that is free here."""
    port = free_port()
    assert SERVE in commands()
    log = (reader.folder / "server.log").open("w")
    process = subprocess.Popen(
        ["bash", "-c", f"{SERVE} PORT={port}"],
        cwd=reader.folder,
        env=reader.environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    deadline = time.monotonic() + 180
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline, Path(log.name).read_text()
            time.sleep(0.2)
    yield port
    # Ctrl-C reaches make and the command line alike
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=60)


def test_the_served_model_answers_the_requests_of_the_page(reader, server):
    score, chat = (line.replace("5001", str(server)) for line in commands() if line.startswith(ASK))
    assert json.loads(reader.types(score).stdout) == [ANSWER]
    events = [line.removeprefix("data: ") for line in reader.types(chat).stdout.splitlines() if line]
    assert events.pop() == "[DONE]"
    assert len(events) > 3
    assert "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events) == ANSWER


def test_the_served_model_answers_the_program_of_the_page(server, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    exec(compile(program.replace("5001", str(server)), "README.md", "exec"), {})
    assert capsys.readouterr().out == ANSWER


@pytest.mark.docker
def test_the_same_command_trains_in_the_container(reader, engine):
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    result = reader.types("make local-train NAME=in-container DATA=sample", DOCKER_HOST=host)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "container" in result.stdout + result.stderr
    assert latest(reader).name == "in-container"
    check_sample_run(latest(reader))


@pytest.mark.docker
def test_the_stack_comes_up_and_answers(reader, engine):
    assert {UP, DOWN} <= set(commands())
    ports = {name: free_port() for name in PORTS}
    # how this machine builds images is its own affair
    own = {name: os.environ[name] for name in variables() if name in os.environ}
    environment = own | {name: str(port) for name, port in ports.items()}
    environment |= {"COMPOSE_PROJECT_NAME": f"phikit-{ports['PHIKIT_CHAT_PORT']}"}
    environment.setdefault("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        up = reader.types(f"{UP} COMPARE=1", **environment)
        assert up.returncode == 0, up.stdout[-3000:] + up.stderr[-3000:]
        assert f"http://127.0.0.1:{ports['PHIKIT_CHAT_PORT']}" in up.stdout
        flow = f"curl --silent --fail http://127.0.0.1:{ports['PHIKIT_FLOW_PORT']}/score"
        flow += " --header 'Content-Type: application/json'"
        asked = reader.types(f"""{flow} --data '{{"input_data": "{QUESTION}"}}'""")
        assert json.loads(asked.stdout) == {"answer": ANSWER}
        base = reader.types(f"""{flow} --data '{{"input_data": "{QUESTION}", "model": "base"}}'""")
        assert json.loads(base.stdout)["answer"] != ANSWER
        for name, path in (("PHIKIT_CHAT_PORT", "/ready"), ("PHIKIT_MLFLOW_PORT", "/health")):
            assert urllib.request.urlopen(f"http://127.0.0.1:{ports[name]}{path}", timeout=30).status == 200
        again_serves_another_run(reader, environment)
        a_service_that_does_not_start_is_named(reader, environment)
    finally:
        down = reader.types(DOWN, **environment)
        reader.types("docker compose down --volumes", **environment)
    assert down.returncode == 0, down.stderr


@pytest.mark.docker
def test_the_whole_way_on_azure_is_rehearsed(reader, engine, tmp_path):
    assert REHEARSE in commands()
    # how this machine builds images is its own affair
    own = {name: os.environ[name] for name in variables() if name in os.environ}
    own.setdefault("DOCKER_HOST", "unix:///var/run/docker.sock")
    begun = time.monotonic()
    done = reader.types(REHEARSE, **own | {"PHIKIT_REHEARSAL_HOME": str(tmp_path / "rehearsal")})
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    said = done.stdout.partition("\nrehearsed:\n")[2]
    assert f"{QUESTION} {ANSWER}" in said
    assert re.search(r"[1-9]\d* requests answered, 0 failed", said)
    assert "does not show" in said
    print(f"{time.monotonic() - begun:.0f} s in all:\n{said}")
    # what it trained is here like any other run, and nothing of it is left running
    check_sample_run(next(path for path in (reader.folder / "runs").glob("rehearsed-*") if "-update" not in path.name))
    assert not engine.containers.list(filters={"label": f"phikit.rehearsal={tmp_path / 'rehearsal'}"})


def again_serves_another_run(reader: Reader, environment: dict[str, str]) -> None:
    """`make up` once more leaves all as it is, and after another training serves that one."""

    def started() -> str:
        return reader.types("docker compose ps --quiet scoring", **environment).stdout

    first, served = started(), latest(reader)
    assert reader.types(f"{UP} COMPARE=1", **environment).returncode == 0
    assert started() == first
    with_base = {run for run in served.parent.iterdir() if (run / "base").is_dir() and not run.is_symlink()}
    other = (with_base - {served}).pop()
    try:
        point(reader, other)
        assert reader.types(f"{UP} COMPARE=1", **environment).returncode == 0
        assert started() not in ("", first)
    finally:
        point(reader, served)


def a_service_that_does_not_start_is_named(reader: Reader, environment: dict[str, str]) -> None:
    up = reader.types(UP, **environment, PHIKIT_SERVE_ENGINE="none-such")
    assert up.returncode != 0
    last = [line for line in up.stderr.splitlines() if line.startswith("error: ")][-1]
    assert "scoring ended with 2" in last
    assert "make logs SERVICE=scoring" in last
    assert "PHIKIT_SERVE_ENGINE" in up.stderr
    logs = reader.types("make logs SERVICE=scorin", **environment)
    assert logs.returncode != 0
    assert "did you mean scoring?" in logs.stderr


def test_the_page_names_every_recipe():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    for recipe in (ROOT / "training" / "recipes").glob("*.yaml"):
        assert f"`{recipe.stem}`" in page


def test_links_of_the_pages_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_on_serving_has_every_setting_with_its_default():
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(PHIKIT_SERVE_\w+)` \| (.*?) \|", page, re.M))
    assert set(told) == set(serving.variables().values())
    for field, name in serving.variables().items():
        default = getattr(serving.Settings(), field)
        if field not in ("key", "threads"):
            written = default if isinstance(default, str | Path) else f"{float(default):.10g}"
            assert told[name].strip("` ") == str(written)
