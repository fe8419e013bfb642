"""Jobs and deployments in containers of the Docker engine, labelled with the home that they belong to.

A container that has ended goes once both its exit code and its output were read; what is left goes with the emulator,
or at the start of the next one of this home.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from devtools.rehearsal.runner import Mount
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from docker.models.containers import Container

    from docker import DockerClient

LABEL = "phikit.rehearsal"
SHARED_MEMORY = "2g"
#: Characters of the engine's own explanation that are shown.
SHOWN = 300


class ContainerRunner:
    """The engine's containers of one home."""

    kind = "docker"

    def __init__(self, client: DockerClient, home: Path, login: Callable[[str], tuple[str, str] | None]) -> None:
        self.client = client
        self._home = str(home)
        self._login = login
        # on a rootless engine the caller is root inside; any other uid there is somebody else outside
        rootless = any("rootless" in option for option in client.info().get("SecurityOptions") or ())
        # (files that it writes to this machine's folders are to be this user's)
        self._user = "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"
        self.end_all()

    def pull(self, image: str) -> None:
        """Have an image: the engine's own, or the registry's; see Runner.pull."""
        from docker.errors import DockerException, ImageNotFound

        try:
            self.client.images.get(image)
            return
        except ImageNotFound:
            pass
        login = self._login(image)
        auth = {"username": login[0], "password": login[1]} if login else None
        try:
            # (without a tag the SDK would pull every one there is)
            tagged = "@" in image or ":" in image.rpartition("/")[2]
            self.client.images.pull(image if tagged else f"{image}:latest", auth_config=auth)
        except DockerException as error:
            raise WireError(400, "ImagePullFailed", f"Failed to pull image {image}: {_explanation(error)}") from error

    def start(
        self,
        name: str,
        *,
        image: str,
        command: list[str] | None,
        environment: Mapping[str, str],
        mounts: Sequence[Mount] = (),
        workdir: str | None = None,
        port: int | None = None,
        network_host: bool = False,
    ) -> StartedContainer:
        """Start a container; see Runner.start."""
        from docker.errors import DockerException

        from docker import types

        self.pull(image)
        published = {f"{port}/tcp": ("127.0.0.1", None)} if port and not network_host else {}
        # a user without a name has no home of its own in most images
        told = {"HOME": "/tmp"} | dict(environment) if self._user != "0:0" else dict(environment)
        container: Container | None = None
        try:
            container = self.client.containers.create(
                image,
                command,
                # an image's own entry point would see the command as its arguments
                entrypoint=None if command is None else [],
                name=f"phikit-rehearsal-{os.getpid()}-{name}",
                environment=told,
                working_dir=workdir,
                mounts=[
                    types.Mount(mount.target, str(mount.source.absolute()), type="bind", read_only=mount.read_only)
                    for mount in mounts
                ],
                network_mode="host" if network_host else "bridge",
                ports=published,
                user=self._user,
                init=True,
                shm_size=SHARED_MEMORY,
                # the proxies of ~/.docker/config.json lead out of the rehearsal
                use_config_proxy=False,
                labels={LABEL: self._home},
            )
            container.start()
            container.reload()
        except DockerException as error:
            if container is not None:
                _remove(container)
            raise WireError(400, "ContainerStartFailed", f"{name}: {_explanation(error)}") from error
        address = f"127.0.0.1:{port}" if port else None
        if published:
            # (one that has ended by now has no ports any more)
            bound = (container.attrs["NetworkSettings"]["Ports"] or {}).get(f"{port}/tcp")
            address = f"127.0.0.1:{bound[0]['HostPort']}" if bound else None
        return StartedContainer(name, address, container)

    def end_all(self) -> None:
        """End what carries this home's label; see Runner.end_all."""
        end_containers(self.client, Path(self._home))


class StartedContainer:
    """One container; see Started."""

    def __init__(self, name: str, address: str | None, container: Container) -> None:
        self.name, self.address = name, address
        self._container = container
        self._lock = threading.Lock()
        self._code: int | None = None
        self._waited, self._read, self._removed = False, False, False

    def output(self) -> Iterator[bytes]:
        """Both streams as one."""
        from docker.errors import NotFound

        try:
            yield from self._container.logs(stream=True, follow=True, stdout=True, stderr=True)
        except NotFound:
            return
        self._tidy(read=True)

    def wait(self) -> int:
        """The exit code."""
        from docker.errors import NotFound

        with self._lock:
            if self._code is not None:
                return self._code
        try:
            code = int(self._container.wait(timeout=None)["StatusCode"])
        except NotFound:
            # somebody removed it; a killed one ends so
            code = 137
        with self._lock:
            self._code = code
        self._tidy(waited=True)
        return code

    def is_alive(self) -> bool:
        """Whether the engine says that it runs."""
        from docker.errors import NotFound

        if self._code is not None:
            return False
        try:
            self._container.reload()
        except NotFound:
            return False
        return self._container.status in ("created", "running", "paused", "restarting")

    def stop(self, grace: float) -> None:
        """SIGTERM, then SIGKILL."""
        self._gone_is_fine(lambda: self._container.stop(timeout=max(1, round(grace))))
        self.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self._gone_is_fine(self._container.kill)
        self.wait()

    def _gone_is_fine(self, end: Callable[[], None]) -> None:
        from docker.errors import APIError

        try:
            end()
        except APIError as error:
            # 404, 409: it ended by itself in between
            if error.status_code not in (404, 409):
                raise

    def _tidy(self, *, waited: bool = False, read: bool = False) -> None:
        with self._lock:
            self._waited, self._read = self._waited or waited, self._read or read
            due = self._waited and self._read and not self._removed
            self._removed = self._removed or due
        if due:
            _remove(self._container)


def end_containers(client: DockerClient, home: Path) -> list[str]:
    """Remove every container of a home, whoever started it; their names."""
    same = {"label": f"{LABEL}={home}"}
    found = client.containers.list(all=True, filters=same, ignore_removed=True)
    for container in found:
        _remove(container)
    return [container.name for container in found]


def _remove(container: Container) -> None:
    from docker.errors import APIError

    try:
        container.remove(force=True, v=True)
    except APIError as error:
        # 404, 409: it is gone, or being removed, already
        if error.status_code not in (404, 409):
            raise


def _explanation(error: Exception) -> str:
    text = getattr(error, "explanation", None) or str(error)
    return " ".join(str(text).split())[:SHOWN]
