"""The scoring server over a run's model, on this machine, until Ctrl-C.

phikit serve
phikit serve --run first --engine onnx --port 5002
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from devtools import models
from devtools.backend import Backend, Task
from devtools.data import near
from devtools.errors import INTERRUPTED, OK, BadInput
from devtools.local_server import LOOPBACK, announce, free_port, is_free, is_loopback, url_of
from devtools.settings import ROOT, Settings

PORT = 5001
#: Seconds that answers in progress get to end, where PHIKIT_SERVE_DRAIN says nothing; and more for the end itself.
DRAIN, END = 30.0, 10.0
#: Seconds in which a large model may load before nobody waits for its address any more.
START = 1800
#: Modules that the server imports beyond the standard library.
PACKAGES = ("uvicorn", "fastapi", "mlflow", "prometheus_client", "transformers")
#: The package's parent is where it starts from.
COMMAND = "cd .. && exec python -m serving"


@dataclass(frozen=True)
class Request:
    """What `phikit serve` was asked for; the fields are its options, None where the settings hold."""

    run: str | None = None
    model: str | None = None
    host: str | None = None
    port: int | None = None
    engine: str | None = None
    precision: str | None = None
    slots: int | None = None
    gpu: bool = False


def serve(request: Request, backend: Backend, settings: Settings, root: Path = ROOT) -> int:
    """Serve until Ctrl-C and return the exit code; raises BadInput before anything has run."""
    findings: list[str] = []
    model = None
    try:
        model = models.choose(request.run, request.model, settings.serve_model, root)
    except BadInput as error:
        findings += error.findings
    host = _host(request.host or settings.serve_host or LOOPBACK, settings, findings)
    port = _port(request.port, host, settings, findings)
    if findings or model is None:
        raise BadInput(findings)
    environment = settings.serving() | _told(request)
    environment |= {"PHIKIT_SERVE_MODEL": str(model), "PHIKIT_SERVE_HOST": host, "PHIKIT_SERVE_PORT": str(port)}
    if backend.name == "docker":
        # all of the container's own addresses: only the published port leads there, and what may reach it is settled
        environment |= {"PHIKIT_SERVE_HOST": "0.0.0.0", "PHIKIT_SERVE_ANONYMOUS": "1"}
    task = Task(
        name=f"serve-{port}",
        command=COMMAND,
        code=root / "serving",
        image="phikit-runtime:gpu" if request.gpu else "phikit-runtime:cpu",
        reads=(model,),
        environment=environment,
        network="on",
        ports={port: port},
        address=host,
        packages=PACKAGES,
        gpu=request.gpu,
        grace=_drain(settings) + END,
    )
    announce(f"{near(model)} answers", url_of(host, port), "/ready", START)
    code = backend.run(task)
    # Ctrl-C is how one ends it
    return OK if code == INTERRUPTED else code


def _told(request: Request) -> dict[str, str]:
    options = {"ENGINE": request.engine, "PRECISION": request.precision, "SLOTS": request.slots}
    return {f"PHIKIT_SERVE_{name}": str(value) for name, value in options.items() if value is not None}


def _host(host: str, settings: Settings, findings: list[str]) -> str:
    """The address to be reached at; in a container the server itself cannot tell who may reach it, so it is here."""
    address = LOOPBACK if host == "localhost" else host
    try:
        ipaddress.ip_address(address)
    except ValueError:
        findings.append(f"--host {host}: is no address; give {LOOPBACK} (this machine alone) or 0.0.0.0 (everybody)")
        return LOOPBACK
    anonymous = (settings.serve_anonymous or "").strip().lower() in ("1", "true")
    if not is_loopback(address) and not settings.serve_key and not anonymous:
        findings.append(
            f"--host {host}: others could reach the server without a key; set PHIKIT_SERVE_KEY, or "
            "PHIKIT_SERVE_ANONYMOUS=1 where something else guards the port"
        )
    return address


def _port(asked: int | None, host: str, settings: Settings, findings: list[str]) -> int:
    name, port = "--port", asked
    if port is None and settings.serve_port:
        name, text = "PHIKIT_SERVE_PORT", settings.serve_port.strip()
        port = int(text) if text.isdecimal() else 0
        if not 0 < port < 65536:
            findings.append(f"{name} {text}: must be 1 to 65535")
            return PORT
    port = port or PORT
    if not is_free(port, host):
        findings.append(f"{name} {port}: is taken; give another, say --port {free_port()}")
    return port


def _drain(settings: Settings) -> float:
    try:
        return max(0.0, float(settings.serve_drain or DRAIN))
    except ValueError:
        return DRAIN  # the server says what is wrong with it
