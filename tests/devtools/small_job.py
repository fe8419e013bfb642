"""The program of the small job that the backend tests run: it does what `mode` in its overrides says.

It takes fine_tune.py's arguments and leaves fine_tune.py's files, without training anything.
"""

import argparse
import fcntl
import json
import os
import shutil
import signal
import sys
from pathlib import Path


def facts() -> dict:
    """What the program can see and do, as the tests ask for it."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    writable = {}
    for name in (".", "/phikit/training", os.environ["HOME"], options.train_file.parent, options.run_dir):
        writable[str(name)] = os.access(name, os.W_OK)
    return {
        "argv": sys.argv[1:],
        "uid": os.getuid(),
        "gid": os.getgid(),
        "cwd": str(Path.cwd()),
        "python": sys.executable,
        "environment": dict(os.environ),
        "capabilities": status["CapEff"].strip(),
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "writable": writable,
        "train": options.train_file.read_text(encoding="utf-8"),
        "terminal": sys.stdout.isatty() and sys.stderr.isatty(),
        "columns": shutil.get_terminal_size().columns,
        "shared_memory": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    }


def stop(number: int, frame: object) -> None:
    (options.run_dir / "checkpoint").write_text(signal.Signals(number).name, encoding="utf-8")
    sys.exit(75)


parser = argparse.ArgumentParser()
for name in ("--recipe", "--model", "--overrides"):
    parser.add_argument(name)
for name in ("--train-file", "--eval-file", "--run-dir", "--model_output_dir"):
    parser.add_argument(name, type=Path)
options = parser.parse_args()
settings = json.loads(options.overrides)
mode = settings.get("mode", "done")
lock = (options.run_dir / ".lock").open("w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print(f"error: {options.run_dir}: another training is writing this run", file=sys.stderr)
    sys.exit(2)
if mode == "exit":
    sys.exit(settings["code"])
if mode == "write":
    (options.run_dir / "half.txt").write_text("half")
    sys.exit(settings["code"])
if mode == "progress":
    sys.stdout.write("10 %\r20 %\r")
    sys.stderr.write("warning\n")
    sys.stdout.flush()
    # the test opens the other end once it has seen these lines: they came while the program ran
    with (options.run_dir / "go").open() as go:
        print(go.read())
if mode == "wait":
    signal.signal(signal.SIGTERM, stop)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if mode in ("wait", "stubborn") and not (options.run_dir / "checkpoint").exists():
    print(f"ready {os.getpid()}", flush=True)
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        sys.exit(130)
if mode == "facts":
    (options.run_dir / "facts.json").write_text(json.dumps(facts()), encoding="utf-8")
scores = {"before": {"exact_match": 0.0}, "after": {"exact_match": 0.75}, "train": {}}
(options.run_dir / "metrics.json").write_text(json.dumps(scores), encoding="utf-8")
(options.run_dir / "report.html").write_text("<p>report</p>", encoding="utf-8")
(options.run_dir / "run.json").write_text(json.dumps({"state": "finished"}), encoding="utf-8")
