"""What preparing leaves behind when it is refused, killed or out of space: all of the files, or none."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.preparation import PROGRAM, TRAINING, chat, errors, run, write


def test_no_space_left(tmp_path):
    source = write(tmp_path / "chats.jsonl", (chat(number) for number in range(2000)))
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rpartition('/')[0])\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    program = [sys.executable, "-c", limited, *PROGRAM[1:], "prepare", str(source), "--out", str(tmp_path / "out")]
    result = subprocess.run(program, capture_output=True, text=True, timeout=60)
    (finding,) = errors(result)
    assert "cannot be written (File too large)" in finding
    assert not (tmp_path / "out").exists()


def test_refused_input_leaves_the_earlier_files_alone(tmp_path):
    source = write(tmp_path / "chats.jsonl", map(chat, range(9)))
    out = tmp_path / "out"
    assert run("prepare", source, "--out", out).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write(source, [*map(chat, range(9)), {"messages": []}])
    errors(run("prepare", source, "--out", out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def started_and_reading(out: Path, source: Path) -> subprocess.Popen:
    """A preparation that has kept some conversations already, and has most of them before it."""
    command = [*PROGRAM, "prepare", str(source), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for number in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                if str(number.readlink()).startswith(str(out)) and number.stat().st_size > 1 << 20:
                    return process
            except OSError:
                continue
        assert process.poll() is None
    raise AssertionError("nothing was kept within a minute")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="watches the open files in /proc")
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_in_the_middle_leaves_nothing(tmp_path, stop):
    source = write(tmp_path / "chats.jsonl", (chat(number, "Yes, it is. " * 24) for number in range(100_000)))
    out = tmp_path / "out"
    process = started_and_reading(out, source)
    try:
        second = run("prepare", "sample", "--out", out)
        assert errors(second) == [f"--out {out}: another preparation is writing there; wait for it"]
    finally:
        process.send_signal(stop)
    assert process.wait(60) == {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}[stop]
    assert not out.exists() or list(out.iterdir()) == []
    assert run("prepare", "sample", "--out", out).returncode == 0


def test_killed_while_writing_leaves_the_earlier_files_whole(tmp_path):
    out = tmp_path / "out"
    assert run("prepare", "sample", "--out", out).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    dies = (
        "import os, signal, sys; from pathlib import Path\n"
        "sys.path.insert(0, sys.argv[1]); from split import OutputFolder\n"
        "with OutputFolder(Path(sys.argv[2])) as output:\n"
        "    output.add(b'1\\n'); output.add(b'2\\n'); output.write(bytearray([0, 1]))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", dies, str(TRAINING), str(out)]).returncode == -signal.SIGKILL
    assert {name: (out / name).read_bytes() for name in before} == before
    assert run("prepare", "sample", "--out", out).returncode == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(before), "the next run clears up"
