"""Runs tasks in containers of the runtime image, through the Docker SDK.

A container sees the code folder at /phikit/<its name> and every other file under its own path, runs as the caller, and
may do nothing beyond reading and writing what the task names. It is removed when its task ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from devtools import image
from devtools.backend import Task, folders_made
from devtools.errors import BadInput, KitError
from devtools.owner import is_alive, of_process
from devtools.settings import Settings
from devtools.supervision import Signals

if TYPE_CHECKING:
    from docker.models.containers import Container

    from docker import DockerClient

CODE = "/phikit"
CA_FILE = "/phikit/ca.pem"
#: Containers of the kit carry this label: which process of which machine looks after them.
OWNER_LABEL = "phikit.owner"
#: ... and this one: what the container does, the same for two runs of the same command.
TASK_LABEL = "phikit.task"
#: Bytes of shared memory: data loaders hand batches over through it, and Docker's own 64 MiB are too few.
SHARED_MEMORY = 1 << 30
#: Folders of the image itself: a mount over one of them would hide the programs in it.
SYSTEM_FOLDERS = {
    Path(name) for name in ("/", "/bin", "/dev", "/etc", "/lib", "/opt", "/phikit", "/proc", "/sys", "/usr")
}
#: What a hub or a tracking server needs, handed over with the network only.
NETWORK_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class DockerBackend:
    """Tasks as containers on the engine that `client` talks to."""

    name = "docker"

    def __init__(self, client: DockerClient, settings: Settings, reason: str) -> None:
        self.reason = reason
        self._client = client
        self._settings = settings

    def prepare(self, task: Task) -> None:
        """Build the image if it is missing or was built from other locks: minutes, once; else milliseconds."""
        image.ensure(self._client, task.image, self._settings)

    def run(self, task: Task) -> int:
        """Run the task; see Backend.run. A container whose command line was killed is ended first."""
        from docker.errors import APIError, DockerException

        self.prepare(task)
        with folders_made(task.writes), self._ca_file(task) as ca_file, Signals() as signals:
            try:
                self._end_orphans(task)
                container = self._create(task, ca_file)
            except (APIError, DockerException) as error:
                raise KitError(f"the Docker engine refuses the container: {_explanation(error)}") from error
            try:
                return self._follow(container, task, signals)
            except DockerException as error:
                raise KitError(f"the Docker engine failed: {_explanation(error)}") from error
            finally:
                _remove(container)

    def _create(self, task: Task, ca_file: Path | None) -> Container:
        from docker.types import DeviceRequest

        terminal = sys.stdout.isatty() and sys.stderr.isatty()
        return self._client.containers.create(
            task.image,
            ["bash", "-c", task.command],
            # an image's own entry point would see the command as its arguments
            entrypoint=[],
            name=f"phikit-{task.name}-{os.getpid()}",
            working_dir=str(task.workdir) if task.workdir else _code(task),
            mounts=self._mounts(task, ca_file),
            environment=self._environment(task),
            user=self._user(),
            network_mode={"none": "none", "on": "bridge", "host": "host"}[task.network],
            ports={f"{inside}/tcp": (task.address, outside) for inside, outside in task.ports.items()},
            # the SDK would add the proxies of ~/.docker/config.json, networkless tasks included
            use_config_proxy=task.network != "none",
            init=True,
            tty=terminal,
            shm_size=SHARED_MEMORY,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])] if task.gpu else [],
            labels={OWNER_LABEL: of_process(os.getpid()), TASK_LABEL: _identity(task)},
        )

    def _mounts(self, task: Task, ca_file: Path | None) -> list:
        from docker.types import Mount

        findings: list[str] = []
        mounts = [Mount(_code(task), str(task.code), type="bind", read_only=True)]
        # a folder that is both read and written is mounted once, writable
        for path in dict.fromkeys([*task.reads, *task.writes]):
            if path.absolute() in SYSTEM_FOLDERS:
                findings.append(
                    f"{path}: cannot be given to a container, it would hide the image's own; use a subfolder"
                )
            elif not path.exists():
                findings.append(f"{path}: there is no such file or folder")
            else:
                source = str(path.absolute())
                mounts.append(Mount(source, source, type="bind", read_only=path not in task.writes))
        if ca_file:
            mounts.append(Mount(CA_FILE, str(ca_file), type="bind", read_only=True))
        if findings:
            raise BadInput(findings)
        return mounts

    def _environment(self, task: Task) -> dict[str, str]:
        environment = {
            # (the image brings a HOME that any uid may write to)
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PHIKIT_CODE": _code(task),
            "PHIKIT_IMAGE": self._client.images.get(task.image).id,
        }
        if sys.stdout.isatty():
            columns, lines = shutil.get_terminal_size()
            environment |= {"COLUMNS": str(columns), "LINES": str(lines), "TERM": "xterm-256color"}
        if task.network != "none":
            told = self._settings.pick(*NETWORK_VARIABLES)
            # programs disagree about the case of these
            environment |= told | {name.lower(): value for name, value in told.items()}
            if self._settings.ca_file:
                environment |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), CA_FILE)
        return environment | dict(task.environment)

    @contextlib.contextmanager
    def _ca_file(self, task: Task) -> Iterator[Path | None]:
        """A file of the public authorities and the private one together, for a task that has the network."""
        private = self._settings.ca_path()
        if task.network == "none" or private is None:
            yield None
            return
        import certifi

        if not private.is_file():
            raise BadInput(f"PHIKIT_CA_FILE: there is no file {private}; name a PEM file, or unset it")
        with tempfile.NamedTemporaryFile(prefix="phikit-ca-", suffix=".pem") as both:
            both.write(Path(certifi.where()).read_bytes() + b"\n" + private.read_bytes())
            both.flush()
            yield Path(both.name)

    def _user(self) -> str:
        # on a rootless engine the caller is root inside; any other uid there is somebody else outside
        if any("rootless" in option for option in self._client.info().get("SecurityOptions") or ()):
            return "0:0"
        return f"{os.getuid()}:{os.getgid()}"

    def _follow(self, container: Container, task: Task, signals: Signals) -> int:
        # attached before the start, so that not even the first line is missed
        if container.attrs["Config"]["Tty"]:
            chunks = ((chunk, None) for chunk in container.attach(stream=True, logs=True))
        else:
            chunks = container.attach(stream=True, logs=True, demux=True)
        pump = threading.Thread(target=_pump, args=(chunks,), name="log", daemon=True)
        container.start()
        pump.start()
        code = signals.supervise(
            lambda: container.wait(timeout=None)["StatusCode"],
            lambda number: _send(container, number),
            lambda: _send(container, signal.SIGKILL),
            task.grace,
        )
        # the engine closes the stream when the container has ended; what is in flight by then still comes
        pump.join(timeout=10)
        return code

    def _end_orphans(self, task: Task) -> None:
        """End containers of this very task whose command line is gone: they hold its lock, and nobody stops them."""
        same = {"label": f"{TASK_LABEL}={_identity(task)}"}
        for container in self._client.containers.list(all=True, filters=same, ignore_removed=True):
            if is_alive(container.labels.get(OWNER_LABEL, "")):
                continue
            if container.status == "running":
                print(f"ending {container.name}, left over from a command line that was killed", file=sys.stderr)
                container.stop(timeout=int(task.grace))
            _remove(container)


def _pump(chunks: Iterator[tuple[bytes | None, bytes | None]]) -> None:
    """Copy output as it comes, carriage returns and all."""
    try:
        for out, err in chunks:
            for chunk, stream in ((out, sys.stdout), (err, sys.stderr)):
                if chunk:
                    stream.buffer.write(chunk)
                    stream.flush()
    except (BrokenPipeError, ValueError):
        # nobody reads on (`| head`): the task itself goes on, its log is not lost to anyone
        for _ in chunks:
            pass


def _send(container: Container, number: signal.Signals) -> None:
    from docker.errors import APIError

    try:
        container.kill(signal=number.name)
    except APIError as error:
        # 409: it ended by itself in between
        if error.status_code not in (404, 409):
            raise


def _remove(container: Container) -> None:
    from docker.errors import APIError

    try:
        container.remove(force=True, v=True)
    except APIError as error:
        # 404, 409: it is gone, or being removed, already
        if error.status_code not in (404, 409):
            raise


def _code(task: Task) -> str:
    """Where the container sees the code folder: a package keeps its name."""
    return f"{CODE}/{task.code.name}"


def _identity(task: Task) -> str:
    return f"{task.name} in {','.join(map(str, task.writes))}"


def _explanation(error: Exception) -> str:
    return " ".join(str(getattr(error, "explanation", None) or error).split())
