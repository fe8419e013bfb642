"""What the emulator is made of that is not the kit's: Azurite, an image registry, an MLflow server.

They are found on the PATH or in ~/.cache/phikit/programs, and fetched there once: Azurite from npm, the registry from
the Debian archive. Where one cannot be had, a container of the Docker engine's does its work: registry:3, and the
runtime image for MLflow.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from devtools.errors import KitError
from devtools.rehearsal import ACCOUNT, authority

AZURITE = "azurite@3.37.0"
REGISTRY_PACKAGE = "docker-registry"
REGISTRY_IMAGE = "registry:3"
RUNTIME_IMAGE = "phikit-runtime:cpu"
#: Ports inside of containers.
REGISTRY_PORT = 5000
MLFLOW_PORT = 5000
#: Seconds for one fetch, and for a program to answer on its port.
FETCH = 300
START = 60


def cache() -> Path:
    """Where fetched programs are kept."""
    return Path.home() / ".cache" / "phikit" / "programs"


def azurite(environment: dict[str, str]) -> list[str]:
    """The command of Azurite's blob service; raises KitError where it cannot be had."""
    if found := shutil.which("azurite-blob"):
        return [found]
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node:
        raise KitError("the rehearsal's storage is Azurite, which needs Node.js: install it (nodejs.org), with npm")
    main = Path("node_modules", "azurite", "dist", "src", "blob", "main.js")
    folder = cache() / AZURITE.replace("@", "-")
    if not (folder / main).is_file():
        if not npm:
            raise KitError("the rehearsal's storage is Azurite, which npm fetches: install npm")
        install = [npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix", ".", AZURITE]
        _fetch(folder, lambda: [install], environment)
    return [node, str(folder / main)]


def azurite_arguments(home: Path, port: int) -> list[str]:
    """How Azurite is run: TLS with the emulator's certificate, whatever version of the API is asked for."""
    options = {
        "--blobHost": "127.0.0.1",
        "--blobPort": str(port),
        "--cert": str(home / authority.CERTIFICATE),
        "--key": str(home / authority.KEY),
        "--oauth": "basic",
        "--location": str(home / "azurite"),
        # a client that pauses for longer than Azurite's own 5 s finds its connection open
        "--blobKeepAliveTimeout": "75",
    }
    flags = ["--skipApiVersionCheck", "--loose", "--disableTelemetry"]
    return [*(word for pair in options.items() for word in pair), *flags]


def azurite_environment(account_key: str) -> dict[str, str]:
    """Its one account."""
    return {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{account_key}"}


def registry(environment: dict[str, str]) -> list[str]:
    """The command of the registry; raises KitError where it cannot be had."""
    if found := shutil.which("docker-registry"):
        return [found]
    folder = cache() / REGISTRY_PACKAGE
    program = folder / "usr" / "bin" / "docker-registry"
    if not program.is_file():
        apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg")
        if not apt or not dpkg:
            raise KitError("docker-registry is not installed, and there is no Debian archive here to fetch it from")

        def steps() -> list[list[str]]:
            return [[apt, "download", REGISTRY_PACKAGE], ["sh", "-c", f"{dpkg} -x {REGISTRY_PACKAGE}_*.deb ."]]

        _fetch(folder, steps, environment)
    return [str(program)]


def registry_settings(home: Path, address: str) -> Path:
    """The file of its settings: where it listens, no sign-in (what stands before it asks for one)."""
    folder = home / "registry"
    folder.mkdir(exist_ok=True)
    file = folder / "config.yml"
    file.write_text(
        f"version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'images'}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '{address}', relativeurls: true}}\n"
    )
    return file


def mlflow() -> list[str]:
    """The command of this Python's MLflow; raises KitError where it has none (a client alone is no server)."""
    if importlib.util.find_spec("mlflow") is None or importlib.util.find_spec("sqlalchemy") is None:
        raise KitError("MLflow is not in this Python's environment (make setup-train)")
    return [sys.executable, "-m", "mlflow"]


def mlflow_arguments(home: Path, host: str, port: int) -> list[str]:
    """A server over a file of its own."""
    folder = home / "mlflow"
    folder.mkdir(exist_ok=True)
    options = {
        "--backend-store-uri": f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination": str(folder / "artifacts"),
        "--host": host,
        "--port": str(port),
        "--workers": "1",
    }
    return ["server", *(word for pair in options.items() for word in pair)]


def mlflow_environment(environment: dict[str, str]) -> dict[str, str]:
    """This machine's, without what points MLflow elsewhere, or out of the rehearsal."""
    away = ("mlflow_", "http_proxy", "https_proxy", "all_proxy")
    mine = {name: value for name, value in environment.items() if not name.lower().startswith(away)}
    # jobs of MLflow's own are no part of this, nor is what it reports about its use
    return mine | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port() -> int:
    """A port on loopback that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def is_free(port: int) -> bool:
    """Whether a port on loopback can be had."""
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def await_answer(port: int, alive: Callable[[], bool], what: str, log: Path, seconds: float = START) -> None:
    """Wait until a program answers on its port; raises KitError when it ended, or time did."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if _answers(port):
            return
        if not alive():
            raise KitError(f"{what} ended at its start; what it said is in {log}")
        # (nothing tells that a port of another process was opened)
        time.sleep(0.02)
    raise KitError(f"{what} does not answer on port {port} after {seconds:.0f} s; what it said is in {log}")


def _answers(port: int) -> bool:
    """Whether somebody takes a connection and keeps it: the engine takes those for a container that does not listen."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(0.05)
            return connection.recv(1) != b""
    except TimeoutError:
        # it waits for a request
        return True
    except OSError:
        return False


def _fetch(folder: Path, steps: Callable[[], list[list[str]]], environment: dict[str, str]) -> None:
    """Fill a folder by commands that run in it; it is there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        work = Path(scratch) / "whole"
        work.mkdir()
        for command in steps():
            try:
                done = subprocess.run(
                    command,
                    cwd=work,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=FETCH,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise KitError(f"fetching {folder.name} failed: {error}") from error
            if done.returncode:
                said = " ".join((done.stderr or done.stdout).split())[-300:]
                raise KitError(f"fetching {folder.name} failed ({' '.join(command[:2])}): {said}")
        # another emulator that fetched it meanwhile came first
        with contextlib.suppress(OSError):
            work.rename(folder)
