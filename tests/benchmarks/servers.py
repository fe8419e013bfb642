"""The servers that bench_serving.py compares, really started: the kit's, `mlflow models serve`, llama.cpp's.

with started(kit(model, "onnx", "int4"), folder) as server: ...
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks import llama_cpp
from tests.benchmarks.load import Client, mlflow_client, openai_client
from tests.training.tracking_server import answers, free_port

ROOT = Path(__file__).parents[2]
#: Tokens of a conversation in the benchmarks, at most, and sequences at a time: the same for every server.
CONTEXT = 512
SLOTS = 16
SECONDS_TO_START = 180


@dataclass(frozen=True)
class Contender:
    """A server to start."""

    name: str
    command: list[str]
    """`PORT` in it becomes the port."""
    ready: str
    """Path that answers 200 once the model is loaded."""
    client: Client
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    contender: Contender
    port: int
    pid: int
    seconds: float
    """From its start until it was ready."""

    def peak_memory(self) -> int:
        """Bytes: the highest resident memory so far of the process and those it started, one by one."""
        return sum(_status(pid, "VmHWM") for pid in _family(self.pid))


def kit(model: Path, engine: str, precision: str) -> Contender:
    """The kit's own server."""
    settings = {
        "MODEL": model,
        "ENGINE": engine,
        "PRECISION": precision,
        "SLOTS": SLOTS,
        "CONTEXT": CONTEXT,
        "PORT": "PORT",
    }
    environment = {f"PHIKIT_SERVE_{name}": str(value) for name, value in settings.items()}
    return Contender(f"kit {engine} {precision}", ["-m", "serving"], "/ready", openai_client(), environment)


def mlflow(model: Path) -> Contender:
    """MLflow's server as its command line starts it."""
    command = ["-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local", "--port", "PORT"]
    # with its default of a minute, what waits behind fifteen others would be cut off
    return Contender(
        "mlflow models serve", command, "/ping", mlflow_client, {"MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "900"}
    )


def llama(folder: Path, gguf: Path) -> Contender:
    """llama.cpp's server with as many slots, and no answer taken from a cache."""
    command = [
        str(llama_cpp.program(folder, "llama-server")), "--model", str(gguf), "--port", "PORT", "--host", "127.0.0.1",
        "--parallel", str(SLOTS), "--ctx-size", str(SLOTS * CONTEXT), "--threads", str(len(os.sched_getaffinity(0))),
        "--threads-batch", str(len(os.sched_getaffinity(0))), "--no-cache-prompt", "--jinja",
    ]  # fmt: skip
    return Contender(f"llama.cpp {gguf.stem}", command, "/health", openai_client(extra={"cache_prompt": False}))


@contextmanager
def started(contender: Contender, folder: Path) -> Iterator[Running]:
    """A server that runs while the block does; its output goes to a file in `folder`."""
    port = free_port()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **{name: value.replace("PORT", str(port)) for name, value in contender.environment.items()},
    }
    command = [part.replace("PORT", str(port)) for part in contender.command]
    if command[0] == "-m":
        command = [sys.executable, *command]
    log = folder / f"{contender.name.replace(' ', '-')}.log"
    began = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while not answers(f"http://127.0.0.1:{port}{contender.ready}"):
            if process.poll() is not None or time.perf_counter() - began > SECONDS_TO_START:
                raise RuntimeError(f"{contender.name} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.01)
        yield Running(contender, port, process.pid, time.perf_counter() - began)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return found


def _status(pid: int, name: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
