"""Puts an emulator together and takes it apart: programs first, then what answers, then the way in.

    assembly.begin()      # programs, resource types
    await assembly.open() # gateway, registry front, proxy
    await assembly.close(); assembly.end()

The registry and the tracking server start beside everything else; whoever needs them first waits for them.
"""

from __future__ import annotations

import base64
import secrets
import socket
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from devtools.errors import KitError
from devtools.rehearsal import (
    API_HOST,
    BLOB_HOST,
    CONTAINER,
    LOGIN_HOST,
    MANAGEMENT_HOST,
    PRICES_HOST,
    SCORING_SUFFIX,
    authority,
    azure_cli,
    gateway,
    programs,
    recorder,
    refusals,
    runner,
)
from devtools.rehearsal.azurite import Blobs
from devtools.rehearsal.identity import flows
from devtools.rehearsal.operations import Operations
from devtools.rehearsal.processes import Processes
from devtools.rehearsal.proxy import Proxy
from devtools.rehearsal.registry import tokens as registry_tokens
from devtools.rehearsal.registry.front import Front
from devtools.rehearsal.server import Rehearsal
from devtools.rehearsal.store import Store
from devtools.rehearsal.wire import WireError
from devtools.settings import ROOT, Settings, inherited

DATABASE = "state.db"
PORTS = "ports"
#: Hosts that somebody asked the proxy for in vain.
REFUSED_HOSTS = "refused-hosts"
#: Seconds that a connection is kept for its next request, and that open ones get at the end.
KEEP_ALIVE = 75
LAST_ANSWERS = 2
#: Connections that may wait to be taken.
BACKLOG = 512


class Assembly:
    """All parts of one emulator."""

    def __init__(self, home: Path, settings: Settings) -> None:
        self._home, self._settings = home, settings
        self._store = Store(home / DATABASE)
        self._processes = Processes(self._store)
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="start")
        self._modules: list[ModuleType] = []
        self._servers: list[tuple[uvicorn.Server, threading.Thread]] = []
        self._proxy: Proxy | None = None
        self._rehearsal: Rehearsal | None = None

    def begin(self) -> None:
        """Start the programs and take up the state; raises KitError when a part cannot be had."""
        self._processes.end_leftovers()
        authority.ensure(self._home)
        azure_cli.write_script(self._home, ROOT, flows.refresh_token(self._store))
        blobs = self._pool.submit(self._start_azurite)
        modules = self._pool.submit(gateway.packages)
        found = runner.choose(self._settings, self._home, self._processes, self._registry_login)
        self._rehearsal = Rehearsal(
            home=self._home,
            store=self._store,
            operations=Operations(self._store),
            refusals=refusals.Refusals(self._store),
            recorder=recorder.Recorder(self._home / recorder.FILE),
            processes=self._processes,
            blobs=blobs.result(),
            runner=found,
            proxy_port=self._port("proxy"),
            registry_port=self._port("registry", keep=True),
            registry=self._pool.submit(self._start_registry, found),
            tracking=self._pool.submit(self._start_mlflow, found),
        )
        self._modules = modules.result()
        for module in self._modules:
            try:
                if resume := getattr(module, "resume", None):
                    resume(self._rehearsal)
            except Exception as error:
                traceback.print_exc()
                raise KitError(
                    f"what {module.__name__.split('.')[-2]} left in {self._home} cannot be taken up ({error!r}): "
                    "phikit rehearsal reset"
                ) from error

    async def open(self) -> None:
        """Answer."""
        assert self._rehearsal
        app = gateway.Gateway(self._rehearsal, gateway.routes(self._modules))
        port = self._listen(app, 0)
        self._listen(Front(self._rehearsal, app), self._rehearsal.registry_port)
        ours = dict.fromkeys((LOGIN_HOST, MANAGEMENT_HOST, API_HOST, PRICES_HOST), port)
        self._proxy = Proxy(ours | {BLOB_HOST: self._rehearsal.blobs.port}, {SCORING_SUFFIX: port}, self._note_refused)
        await self._proxy.start(self._rehearsal.proxy_port)

    def facts(self) -> dict[str, Any]:
        """What clients need to know."""
        assert self._rehearsal
        return {
            "proxy_port": self._rehearsal.proxy_port,
            "registry_port": self._rehearsal.registry_port,
            "runner": self._rehearsal.runner.kind,
        }

    async def close(self) -> None:
        """Let nobody in any more."""
        if self._proxy:
            await self._proxy.stop()

    def end(self) -> None:
        """End what goes on, and everything that was started."""
        if self._rehearsal:
            for module in reversed(self._modules):
                if end := getattr(module, "end", None):
                    _attempt(lambda end=end: end(self._rehearsal))
            _attempt(self._rehearsal.runner.end_all)
        for server, _ in self._servers:
            server.should_exit = True
        for _, thread in self._servers:
            thread.join()
        # (a start that is still going on ends with its program)
        self._processes.end_all()
        self._pool.shutdown(cancel_futures=True)
        self._processes.end_all()
        if self._rehearsal:
            # (a start that came to its end in between may have had a container instead)
            _attempt(self._rehearsal.runner.end_all)
            self._rehearsal.blobs.close()
        self._store.close()

    def _start_azurite(self) -> Blobs:
        port = self._port("azurite")
        found = self._store.get("secrets", "account-key")
        key = (found or {}).get("value") or base64.b64encode(secrets.token_bytes(64)).decode()
        self._store.put("secrets", "account-key", {"value": key})
        command = programs.azurite(inherited()) + programs.azurite_arguments(self._home, port)
        self._run("azurite", command, port, inherited() | programs.azurite_environment(key))
        blobs = Blobs(self._home, port, key)
        blobs.ensure_container(CONTAINER)
        return blobs

    def _start_registry(self, found: runner.Runner) -> int:
        try:
            program = programs.registry(inherited())
        except KitError as error:
            settings = programs.registry_settings(self._home, f":{programs.REGISTRY_PORT}")
            command = ["registry", "serve", str(settings)]
            return self._run_container(
                "registry", programs.REGISTRY_IMAGE, command, programs.REGISTRY_PORT, found, error
            )
        port = self._port("registry-upstream")
        file = programs.registry_settings(self._home, f"127.0.0.1:{port}")
        self._run("registry", [*program, "serve", str(file)], port, inherited())
        return port

    def _start_mlflow(self, found: runner.Runner) -> int:
        try:
            program = programs.mlflow()
        except KitError as error:
            inside = programs.MLFLOW_PORT
            command = ["mlflow", *programs.mlflow_arguments(self._home, "0.0.0.0", inside)]
            return self._run_container("mlflow", programs.RUNTIME_IMAGE, command, inside, found, error)
        port = self._port("mlflow")
        command = [*program, *programs.mlflow_arguments(self._home, "127.0.0.1", port)]
        self._run("mlflow", command, port, programs.mlflow_environment(inherited()))
        return port

    def _run_container(
        self, name: str, image: str, command: list[str], port: int, found: runner.Runner, missing: KitError
    ) -> int:
        """Run what is missing on this machine in a container; raises `missing` where that cannot be done either."""
        if found.kind != "docker":
            raise missing
        folder = self._home / name
        try:
            started = found.start(
                name,
                image=image,
                command=command,
                environment=programs.mlflow_environment({}),
                mounts=[runner.Mount(folder, str(folder))],
                port=port,
            )
        except WireError as error:
            raise KitError(f"{missing}; nor does image {image} start: {error}") from error
        log = self._home / f"{name}.log"
        threading.Thread(target=_write, args=(started, log), name=name, daemon=True).start()
        if not started.address:
            raise KitError(f"{missing}; and a container of image {image} ends at once: its log is {log}")
        outside = int(started.address.rpartition(":")[2])
        programs.await_answer(outside, started.is_alive, name, log)
        return outside

    def _run(self, name: str, command: list[str], port: int, environment: dict[str, str]) -> None:
        log = self._home / f"{name}.log"
        process = self._processes.start(name, command, log=log, environment=environment, cwd=self._home)
        programs.await_answer(port, lambda: process.poll() is None, name, log)

    def _port(self, name: str, keep: bool = False) -> int:
        """A port on loopback: the one of the last time if it is free; raises KitError if it must be that one."""
        kept = self._store.get(PORTS, name)
        if kept and programs.is_free(kept["port"]):
            return kept["port"]
        if kept and keep:
            raise KitError(
                f"port {kept['port']}, which this rehearsal's images are called by, is taken by another program: end "
                "that, or begin anew (phikit rehearsal reset)"
            )
        return self._store.put(PORTS, name, {"port": programs.free_port()})["port"]

    def _registry_login(self, image: str) -> tuple[str, str] | None:
        assert self._rehearsal
        host = f"localhost:{self._rehearsal.registry_port}/"
        return registry_tokens.login(self._store) if image.startswith(host) else None

    def _listen(self, app: ASGIApp, port: int) -> int:
        """Serve an application over TLS, on a loop and a thread of its own; returns its port."""
        # (named as TCP: only then does asyncio switch off Nagle's algorithm, which costs 40 ms an answer)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(BACKLOG)
        config = uvicorn.Config(
            app,
            ssl_certfile=self._home / authority.CERTIFICATE,
            ssl_keyfile=str(self._home / authority.KEY),
            lifespan="off",
            access_log=False,
            log_level="warning",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=LAST_ANSWERS,
            server_header=False,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name=f"listen {port}", daemon=True)
        self._servers.append((server, thread))
        thread.start()
        return listener.getsockname()[1]

    def _note_refused(self, target: str) -> None:
        found = self._store.get(REFUSED_HOSTS, target) or {"times": 0}
        self._store.put(REFUSED_HOSTS, target, {"times": found["times"] + 1})


def _write(started: runner.Started, log: Path) -> None:
    """Write down what a container says."""
    with log.open("ab") as file:
        for piece in started.output():
            file.write(piece)
            file.flush()


def _attempt(work: Callable[[], None]) -> None:
    """Do it; what goes wrong at the end of everything keeps nothing else from ending."""
    try:
        work()
    except Exception:
        traceback.print_exc()
