"""A training that is interrupted wherever it can be: one line, an exit code, and the same command goes on."""

import json
import os
import pty
import signal
import threading
import time

import pytest

from devtools.azure.stream import interruptible
from tests.azure_backend.test_sign_in import read_until
from tests.azure_backend.test_training import TRAIN, errors, jobs

LONG = ("--set", "steps=40", "--set", "pause=0.25")


def of(running, name: str) -> list[str]:
    """The jobs of a run."""
    return [job for job in jobs(running) if job.startswith(f"{name}-")]


def step_of(running, name: str, seconds: float = 60) -> None:
    """Wait until a run's job is at work."""
    deadline = time.monotonic() + seconds
    while not any(jobs(running)[job] == "Running" for job in of(running, name)):
        assert time.monotonic() < deadline, jobs(running)
        threading.Event().wait(0.1)


def output(process, seconds: float = 120) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    assert "Traceback" not in err, err[-3000:]
    return process.returncode, out, err


def test_killed_while_it_follows(small):
    process = small.start(*TRAIN, "--name", "killed", *LONG)
    step_of(small, "killed")
    process.kill()
    process.communicate()
    done = small.phikit(*TRAIN, "--name", "killed", *LONG)
    assert done.returncode == 0, done.stderr
    assert len(of(small, "killed")) == 1
    assert done.stdout.count("step 40") == 1
    assert (small.root / "runs" / "killed" / "model" / "MLmodel").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_where_nobody_can_be_asked(small, number):
    name = f"by-{number.name.lower()}"
    process = small.start(*TRAIN, "--name", name, *LONG)
    step_of(small, name)
    process.send_signal(number)
    code, _, err = output(process)
    assert code in (130, -signal.SIGTERM)
    if number is signal.SIGINT:
        assert "goes on" in err
    assert jobs(small)[of(small, name)[0]] == "Running"
    assert small.phikit("azure", "cancel", name, "--yes").returncode == 0


@pytest.mark.parametrize(("answer", "state", "code"), [("l", "Running", 130), ("c", "Canceled", 1)])
def test_ctrl_c_asks(small, answer, state, code):
    name = f"asked-{answer}"
    ours, theirs = pty.openpty()
    process = small.start(*TRAIN, "--name", name, *LONG, terminal=theirs)
    os.close(theirs)
    read_until(ours, "step 1", 90)
    process.send_signal(signal.SIGINT)
    read_until(ours, "leave the job, or cancel it")
    os.write(ours, f"{answer}\n".encode())
    reader = threading.Thread(target=drain, args=(ours,), daemon=True)
    reader.start()
    assert process.wait(timeout=90) == code
    reader.join(10)
    os.close(ours)
    (job,) = of(small, name)
    deadline = time.monotonic() + 60
    while jobs(small)[job] != state:
        assert time.monotonic() < deadline, jobs(small)[job]
        threading.Event().wait(0.1)
    if state == "Running":
        assert small.phikit("azure", "cancel", name, "--yes").returncode == 0


class Closing:
    """Something that is closed when nobody has it any more: just then somebody presses Ctrl-C."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        # (a signal is heard between two instructions)
        for _ in range(1000):
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_python_would_lose_is_heard():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interruptible() as check:
            check()
            something = Closing()
            del something
            with pytest.raises(KeyboardInterrupt):
                check()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def drain(terminal: int) -> None:
    """Read what a terminal shows, so that its program never waits."""
    while True:
        try:
            if not os.read(terminal, 4096):
                return
        except OSError:
            return


def test_a_preempted_node(small):
    small.refuse("preempt", times=1)
    done = small.phikit(*TRAIN, "--name", "cheap", *LONG, PHIKIT_AZURE_PRIORITY="low", PHIKIT_AZURE_CLUSTER="cheap")
    assert done.returncode == 0, done.stderr
    assert "at low priority" in done.stderr
    begins = [int(line.split()[2].rstrip(",")) for line in done.stdout.splitlines() if line.startswith("begins at")]
    assert len(begins) == 2
    assert begins[1] > 0
    assert len(of(small, "cheap")) == 1


def test_a_lost_node(small):
    small.refuse("node-loss", times=1)
    done = small.phikit(*TRAIN, "--name", "lost", *LONG)
    assert done.returncode == 0, done.stderr
    assert "its node was lost; submitted again" in done.stderr
    begins = [int(line.split()[2].rstrip(",")) for line in done.stdout.splitlines() if line.startswith("begins at")]
    assert len(begins) == 2
    assert begins[1] > 0
    assert len(of(small, "lost")) == 2


def test_nodes_that_are_lost_again_and_again(small):
    small.refuse("node-loss")
    done = small.phikit(*TRAIN, "--name", "unlucky", "--set", "steps=1000", "--set", "pause=0.5")
    assert done.returncode == 1
    assert len(errors(done)) == 1
    assert len(of(small, "unlucky")) == 4


def test_a_job_that_fails(small):
    small.refuse("job-fails", times=1)
    done = small.phikit(*TRAIN, "--name", "failing")
    assert done.returncode == 1
    (line,) = errors(done)
    assert "exited with status code 1" in line
    # given again it is submitted again, and comes home
    again = small.phikit(*TRAIN, "--name", "failing")
    assert again.returncode == 0, again.stderr
    assert len(of(small, "failing")) == 2


def test_an_image_that_cannot_be_pulled(small):
    small.refuse("image-pull", times=1)
    done = small.phikit(*TRAIN, "--name", "unpulled")
    assert done.returncode == 1
    assert "ImagePullFailed" in errors(done)[0]


def test_a_sign_in_that_runs_out_while_it_follows(small):
    process = small.start(*TRAIN, "--name", "expired", *LONG)
    step_of(small, "expired")
    small.refuse("expired-token")
    code, _, err = output(process)
    small.refuse_nothing()
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "az login" in line
    assert "the job goes on" in line
    done = small.phikit(*TRAIN, "--name", "expired", *LONG)
    assert done.returncode == 0, done.stderr
    assert len(of(small, "expired")) == 1


def test_a_service_that_is_out_of_reach_for_a_while(small):
    process = small.start(*TRAIN, "--name", "lost-touch", *LONG)
    step_of(small, "lost-touch")
    small.refuse("unavailable", times=3, seconds=0)
    code, out, err = output(process)
    assert code == 0, err
    assert "trying again" in err
    assert "Azure answers again" in err
    assert [line for line in out.splitlines() if line == "step 40"] == ["step 40"]


def test_nothing_is_half_made(small):
    for run in (small.root / "runs").iterdir():
        if run.is_dir() and not run.is_symlink():
            assert not (run / ".azure.json.new").exists()
            record = json.loads((run / "azure.json").read_text()) if (run / "azure.json").exists() else {"jobs": []}
            assert len(record["jobs"]) == len(set(record["jobs"]))
