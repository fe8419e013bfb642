"""Both backends, with a real job in a real process or container: output, exit codes, signals, ownership, limits."""

import contextlib
import json
import os
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from devtools.docker_backend import TASK_LABEL

UNSTOPPED = ("--set", "mode=wait", "--name", "one")


def facts_of(checkout, *arguments: str, **environment: str) -> dict:
    done = checkout.phikit("train", "--set", "mode=facts", "--name", "facts", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads((checkout.root / "runs" / "facts" / "facts.json").read_text())


def started(process: subprocess.Popen) -> int:
    """Wait until the job says that it is ready; its pid, where it runs."""
    line = process.stdout.readline()
    assert line.startswith("ready "), line + process.stderr.read()
    return int(line.split()[1])


def containers(engine, checkout) -> list:
    """Those that write into this checkout: other tests may be running beside these."""
    found = engine.containers.list(all=True, filters={"label": TASK_LABEL}, ignore_removed=True)
    return [container for container in found if str(checkout.root) in container.labels[TASK_LABEL]]


def test_a_run_from_data_to_report(checkout, backend):
    done = checkout.phikit("train", "--backend", backend, "--name", "first")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "report: runs/first/report.html"
    assert ("virtual environment" if backend == "venv" else "using a container") in done.stderr.splitlines()[0]
    assert (checkout.root / "runs" / "latest").readlink() == Path("first")
    assert checkout.phikit("runs").stdout == "first\tfinished\t0.000\t0.750\n"


@pytest.mark.parametrize("code", [1, 2, 75, 130])
def test_exit_codes_come_through(checkout, backend, code):
    done = checkout.phikit("train", "--backend", backend, "--set", "mode=exit", "--set", f"code={code}")
    assert done.returncode == code
    assert not (checkout.root / "runs" / "latest").is_symlink()
    # bad input leaves nothing behind; what may be gone on with does
    assert len(list((checkout.root / "runs").glob("tiny_cpu-*/job.json"))) == (code != 2)


def test_output_comes_live_and_unchanged(checkout, backend):
    fifo = checkout.root / "runs" / "live" / "go"
    checkout.phikit("train", "--backend", backend, "--set", "mode=exit", "--set", "code=1", "--name", "live")
    # the run that begins here writes into the same folder, which now has the pipe that the job waits on
    os.mkfifo(fifo)
    job = json.loads((fifo.parent / "job.json").read_text())
    job["inputs"]["overrides"] = {"mode": "progress"}
    checkout.write("runs/live/job.json", json.dumps(job))
    process = checkout.start("train", "--backend", backend, "--set", "mode=progress", "--name", "live")
    out = process.stdout.buffer
    assert out.read(10) == b"10 %\r20 %\r"
    assert process.poll() is None
    with fifo.open("w") as go:
        go.write("went on")
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert rest.startswith("went on\n")
    assert "warning\n" in err
    assert "warning" not in rest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_job(checkout, backend, number):
    process = checkout.start("train", "--backend", backend, *UNSTOPPED)
    started(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 75)
    assert "stopping (up to 120 s" in err
    if number != signal.SIGINT:
        assert (checkout.root / "runs" / "one" / "checkpoint").read_text() == "SIGTERM"
        again = checkout.phikit("train", "--backend", backend, *UNSTOPPED)
        assert again.returncode == 0, again.stderr
        assert "(going on with it)" in again.stderr


def test_a_second_signal_ends_a_job_that_ignores_the_first(checkout, backend, request):
    process = checkout.start("train", "--backend", backend, "--set", "mode=stubborn", "--name", "stubborn")
    pid = started(process)
    process.send_signal(signal.SIGTERM)
    assert any("stopping" in line for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 137
    if backend == "docker":
        assert containers(request.getfixturevalue("engine"), checkout) == []
    else:
        assert not Path(f"/proc/{pid}").exists()


def test_two_trainings_into_one_run_at_once(checkout, backend):
    first = checkout.start("train", "--backend", backend, *UNSTOPPED)
    started(first)
    second = checkout.phikit("train", "--backend", backend, *UNSTOPPED)
    assert second.returncode == 2
    errors = [line for line in second.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].endswith("another training is writing this run")
    assert checkout.phikit("runs", "rm", "one").returncode == 2
    assert checkout.phikit("runs").stdout == "one\trunning\t-\t-\n"
    first.terminate()
    first.communicate(timeout=60)
    assert first.returncode == 75


def test_a_killed_command_line_leaves_nothing_in_the_way(checkout, backend, request):
    process = checkout.start("train", "--backend", backend, *UNSTOPPED)
    started(process)
    process.kill()
    process.communicate()
    again = checkout.start("train", "--backend", backend, *UNSTOPPED)
    if backend == "docker":
        # the first container was asked to stop, so its checkpoint is there: the second one comes to its end
        _, err = again.communicate(timeout=60)
        assert "left over from a command line that was killed" in err
        assert containers(request.getfixturevalue("engine"), checkout) == []
        assert again.returncode == 0
    else:
        started(again)
        again.terminate()
        again.communicate(timeout=60)
        assert again.returncode == 75


def test_the_job_gets_its_inputs_and_settings(checkout, backend):
    seen = facts_of(checkout, "--backend", backend, "--set", "note=it's", "--set", "rate=1e-3", HF_TOKEN="secret-token")
    given = dict(zip(seen["argv"][::2], seen["argv"][1::2], strict=True))
    assert json.loads(given["--overrides"]) == {"mode": "facts", "note": "it's", "rate": 1e-3}
    assert given["--train-file"] == str(checkout.root / "data" / "train_data.jsonl")
    assert given["--run-dir"] == str(checkout.root / "runs" / "facts")
    assert '"train"' in seen["train"]
    environment = seen["environment"]
    assert environment["FROM_THE_JOB"] == "yes"
    assert environment["MLFLOW_EXPERIMENT_NAME"] == "phikit"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "MLFLOW_TRACKING_URI" not in environment
    assert environment["PHIKIT_CODE"] == (
        "/phikit/training" if backend == "docker" else str(checkout.root / "training")
    )


def test_a_terminal_is_handed_through(checkout, backend):
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (30, 77))
    arguments = ("train", "--set", "mode=facts", "--name", "facts", "--backend", backend)
    process = checkout.start(*arguments, terminal=theirs)
    os.close(theirs)
    shown = b""
    # on Linux the end of a terminal is an error
    with contextlib.suppress(OSError):
        while chunk := os.read(ours, 4096):
            shown += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0, shown
    assert b"report: runs/facts/report.html" in shown
    seen = json.loads((checkout.root / "runs" / "facts" / "facts.json").read_text())
    assert seen["terminal"]
    assert seen["columns"] == 77


def test_files_belong_to_the_caller(checkout, backend):
    seen = facts_of(checkout, "--backend", backend)
    caller = (checkout.root / "data").stat()
    assert (seen["uid"], seen["gid"]) == (caller.st_uid, caller.st_gid)
    made = list((checkout.root / "runs").rglob("*"))
    assert len(made) >= 5
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in made} == {(caller.st_uid, caller.st_gid)}


@pytest.mark.docker
def test_a_container_may_do_no_more_than_it_must(checkout, runtime_image):
    seen = facts_of(checkout, "--backend", "docker")
    assert seen["cwd"] == "/phikit/training"
    assert seen["writable"] == {
        ".": False,
        "/phikit/training": False,
        seen["environment"]["HOME"]: True,
        str(checkout.root / "data"): False,
        str(checkout.root / "runs" / "facts"): True,
    }
    assert seen["interfaces"] == ["lo"]
    assert int(seen["capabilities"], 16) == 0
    assert seen["no_new_privileges"] == "1"
    assert seen["shared_memory"] >= 1 << 30
    assert seen["environment"]["PHIKIT_IMAGE"].startswith("sha256:")


@pytest.mark.docker
def test_a_container_gets_the_network_when_asked(checkout, runtime_image):
    seen = facts_of(checkout, "--backend", "docker", "--network", "on", NO_PROXY="example.org")
    assert len(seen["interfaces"]) == 2
    assert seen["environment"]["no_proxy"] == "example.org"
    assert "HF_HUB_OFFLINE" not in seen["environment"]


@pytest.mark.docker
def test_secrets_stay_out_of_output_and_labels(checkout, engine, runtime_image):
    process = checkout.start(
        "train", "--backend", "docker", *UNSTOPPED, "--network", "on", HF_TOKEN="s3cret", HF_HOME="hub"
    )
    started(process)
    (container,) = containers(engine, checkout)
    assert "HF_TOKEN=s3cret" in container.attrs["Config"]["Env"]
    assert "s3cret" not in json.dumps(container.attrs["Config"]["Labels"])
    assert "s3cret" not in json.dumps(container.attrs["Config"]["Cmd"])
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert "s3cret" not in out + err


@pytest.mark.docker
def test_a_long_silence_does_not_end_the_log(engine, runtime_image, tmp_path, capfdbinary):
    from devtools.backend import Task
    from devtools.docker_backend import DockerBackend
    from devtools.settings import Settings

    backend = DockerBackend(engine, Settings(), "")
    task = Task("silence", 'python -c "import time; print(1); time.sleep(2.5); print(2)"', tmp_path)
    usual, engine.api.timeout = engine.api.timeout, 1
    try:
        assert backend.run(task) == 0
    finally:
        engine.api.timeout = usual
    assert capfdbinary.readouterr().out == b"1\n2\n"


@pytest.mark.docker
@pytest.mark.parametrize("folder", ["/usr", "/etc", "/"])
def test_a_container_is_not_given_folders_that_would_hide_its_own(engine, runtime_image, tmp_path, folder):
    from devtools.backend import Task
    from devtools.docker_backend import DockerBackend
    from devtools.errors import BadInput
    from devtools.settings import Settings

    with pytest.raises(BadInput, match="would hide the image's own"):
        DockerBackend(engine, Settings(), "").run(Task("hide", "true", tmp_path, reads=[Path(folder)]))
