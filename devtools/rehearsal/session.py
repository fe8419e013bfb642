"""What clients need: whether the emulator runs, to start and end it, the variables that lead a program to it.

home = session.home(Settings.load())
session.ensure_up(home)
subprocess.run(command, env=inherited() | session.environment(home))
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devtools.errors import BadInput, KitError
from devtools.rehearsal import CLIENT, GROUP, LOGIN_HOST, SUBSCRIPTION, TENANT, WORKSPACE
from devtools.rehearsal.identity import tokens
from devtools.rehearsal.processes import Processes, born, wait_gone
from devtools.rehearsal.store import Store
from devtools.settings import ROOT, Settings, inherited

DATABASE = "state.db"
STATE = "running.json"
LOG = "server.log"
STARTING = "starting"
#: The folder with the stand-in `az`.
BIN = "bin"
#: Seconds that an emulator has to end by itself.
END = 60


def home(settings: Settings) -> Path:
    """The folder of the emulator's state, which may not be there yet.

    Raises:
        BadInput: it cannot be one.
    """
    told = settings.rehearsal_home
    folder = Path(told).expanduser().absolute() if told else ROOT / ".rehearsal"
    there = next(path for path in (folder, *folder.parents) if path.exists())
    problem = "is no folder" if not there.is_dir() else "cannot be written to" if not os.access(there, os.W_OK) else ""
    if problem:
        raise BadInput(f"{f'PHIKIT_REHEARSAL_HOME={told}' if told else folder}: {problem}")
    return folder


def note(home: Path, pid: int, facts: dict[str, Any]) -> None:
    """Say that an emulator is ready; it does so itself."""
    scratch = home / f"{STATE}.new"
    scratch.write_text(json.dumps({"pid": pid, "born": born(pid)} | facts), encoding="utf-8")
    scratch.replace(home / STATE)


def forget(home: Path) -> None:
    """Say that it is so no more."""
    (home / STATE).unlink(missing_ok=True)


def running(home: Path) -> dict[str, Any] | None:
    """What the emulator of a home says of itself (`pid`, `proxy_port`, `registry_port`, `runner`); None: none runs."""
    try:
        facts = json.loads((home / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # (one that was killed left its file)
    return facts if facts["born"] and born(facts["pid"]) == facts["born"] else None


def ensure_up(home: Path) -> bool:
    """Have an emulator, ready; whether it had to be started.

    Raises:
        KitError: it does not start; the message says why, its log more.
    """
    home.mkdir(parents=True, exist_ok=True)
    # of several that want one at once, one starts it and the others wait
    with _starting(home):
        if running(home):
            return False
        log = home / LOG
        with log.open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "devtools.rehearsal.server", str(home)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                # Ctrl-C in this terminal is not meant for it
                start_new_session=True,
            )
        try:
            assert process.stdout
            line = process.stdout.readline().strip()
        except BaseException:
            process.terminate()
            raise
    if line != "ready":
        process.wait()
        reason = line.removeprefix("error: ") or f"it ended with exit code {process.returncode}"
        raise KitError(f"the rehearsal does not start: {reason}; its log is {log}")
    return True


def end(home: Path) -> bool:
    """End the emulator and everything it started; whether there was anything. Its state stays.

    What an emulator that was killed left behind is ended likewise.
    """
    if not (home / DATABASE).exists():
        return False
    with _starting(home):
        facts = running(home)
        if facts:
            with contextlib.suppress(ProcessLookupError):
                os.kill(facts["pid"], signal.SIGTERM)
                if not wait_gone(facts["pid"], facts["born"], END):
                    os.kill(facts["pid"], signal.SIGKILL)
                    wait_gone(facts["pid"], facts["born"], END)
            forget(home)
        left = _end_leftovers(home)
    return bool(facts) or left


def reset(home: Path) -> bool:
    """End the emulator and remove its state; whether there was any. Raises KitError for a folder of something else."""
    if not home.exists():
        return False
    if any(home.iterdir()) and not (home / DATABASE).exists():
        raise KitError(f"{home}: holds something else than a rehearsal; nothing was removed")
    end(home)
    _remove_images(home)
    shutil.rmtree(home)
    return True


@contextlib.contextmanager
def _starting(home: Path) -> Iterator[None]:
    """Hold what only one process may do to a home at a time: start an emulator, or end it."""
    with (home / STARTING).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _end_leftovers(home: Path) -> bool:
    from devtools.local import engine
    from devtools.rehearsal.container_runner import end_containers

    store = Store(home / DATABASE)
    try:
        ended = Processes(store).end_leftovers()
    finally:
        store.close()
    # (without an engine there are no containers)
    with contextlib.suppress(KitError):
        ended += end_containers(engine(Settings.load()), home)
    return bool(ended)


def _remove_images(home: Path) -> None:
    """Remove the images that were built for a home's environments."""
    from docker.errors import DockerException

    from devtools.local import engine
    from devtools.rehearsal.building import label

    # (without an engine there are none; one that somebody runs stays)
    with contextlib.suppress(KitError, DockerException):
        images = engine(Settings.load()).images
        for image in images.list(filters={"label": label(home)}):
            images.remove(image.id, force=True)


def environment(home: Path) -> dict[str, str]:
    """The variables that lead a program to the running emulator, signed in; empty ones are to count as unset.

    Raises:
        KitError: none runs.
    """
    facts = running(home)
    if facts is None:
        raise KitError("no rehearsal runs: phikit rehearsal up")
    proxy, authority = f"http://127.0.0.1:{facts['proxy_port']}", str(home / "ca.pem")
    store = Store(home / DATABASE)
    try:
        secret = tokens.secret(store, "client")
    finally:
        store.close()
    both = {
        "HTTPS_PROXY": proxy,
        # (plain http is refused there; past it, a real metadata service could answer)
        "HTTP_PROXY": proxy,
        "NO_PROXY": "127.0.0.1,localhost,::1",
        # whatever leads elsewhere
        "ALL_PROXY": "",
    }
    trusting = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
    return {
        **both,
        **{name.lower(): value for name, value in both.items()},
        **dict.fromkeys(trusting, authority),
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT,
        "AZURE_CLIENT_SECRET": secret,
        "AZURE_AUTHORITY_HOST": LOGIN_HOST,
        "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
        "AZURE_RESOURCE_GROUP": GROUP,
        "AZURE_WORKSPACE": WORKSPACE,
        "PHIKIT_REHEARSAL_HOME": str(home),
        # (last, for what is nowhere else: this environment's own programs, phikit among them)
        "PATH": os.pathsep.join(
            [str(home / BIN), inherited().get("PATH", os.defpath), str(Path(sys.executable).parent)]
        ),
    }
