"""The real command line in a checkout of its own, against an emulator of its own: no account, no network.

Jobs and endpoints run as processes here: what a container adds is tested in tests/rehearsal and by the tour. So images
are what Azure would build (PHIKIT_AZURE_IMAGE=build), unless a test says otherwise.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from devtools.rehearsal import session
from devtools.rehearsal.store import Store
from devtools.settings import ROOT, variables
from tests.rehearsal import written
from tests.rehearsal.conftest import Running, node, runtime_image  # noqa: F401 - fixtures

PARTS = ("devtools", "training", "serving", "docker", "flows")


@dataclass
class Checkout:
    """A checkout of the kit, and its command line."""

    root: Path
    started: list[subprocess.Popen] = field(default_factory=list)

    @property
    def client(self) -> dict[str, str]:
        """The environment of the command line."""
        return dict(os.environ)

    def start(self, *arguments: str, terminal: int | None = None, **environment: str) -> subprocess.Popen:
        """Start `phikit ARGUMENTS` at a `terminal`, or with pipes and no input; empty variables are unset."""
        told = self.client | environment
        process = subprocess.Popen(
            [sys.executable, "-m", "devtools.cli", *arguments],
            cwd=self.root,
            env={name: value for name, value in told.items() if value or name not in environment},
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE if terminal is None else terminal,
            stderr=subprocess.PIPE if terminal is None else terminal,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def phikit(self, *arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess:
        """Run `phikit ARGUMENTS` to its end."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=timeout)
        assert "Traceback" not in err, err[-4000:]
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def end(self) -> None:
        """End what a failed test left running."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()


@dataclass
class Rehearsed(Checkout, Running):
    """An emulator, and a checkout whose command line talks to it."""

    @property
    def client(self) -> dict[str, str]:
        """Nothing of this machine's own settings, and the emulator's."""
        own = {name: value for name, value in os.environ.items() if name not in variables() or name == "DOCKER_HOST"}
        own |= session.environment(self.home)
        return own | {"PHIKIT_AZURE_IMAGE": "build", "PYTHONDONTWRITEBYTECODE": "1"}

    def uploads(self) -> list[str]:
        """The blobs that clients wrote so far, locks aside."""
        return [name for name in written.blobs(self.home) if "/locks/" not in name]


def copy_of_the_checkout(folder: Path) -> Path:
    """What the command line needs of the checkout, in a folder of its own."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".promptflow"))
    shutil.copy(ROOT / "compose.yaml", folder)
    sample = folder / "training" / "sample"
    assert sample.is_dir()
    return folder


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    """An emulator of the module's own: what others left there would be in its way, and its quota."""
    home = tmp_path_factory.mktemp("rehearsed")
    root = copy_of_the_checkout(tmp_path_factory.mktemp("checkout of the kit"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHIKIT_REHEARSAL_RUNNER", "process")
        session.ensure_up(home)
    store = Store(home / "state.db")
    running = Rehearsed(home, store, root)
    try:
        yield running
    finally:
        running.end()
        session.end(home)
        store.close()


@pytest.fixture(autouse=True)
def nothing_is_refused(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test switched on ends with it."""
    yield
    if {"rehearsed", "small", "deployable", "served"} & set(request.fixturenames):
        request.getfixturevalue("rehearsed").refuse_nothing()


@pytest.fixture(scope="module")
def small(rehearsed: Rehearsed, tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    """The same emulator, and a checkout whose trainings take a second."""
    root = copy_of_the_checkout(tmp_path_factory.mktemp("small"))
    training = root / "training"
    shutil.copy(Path(__file__).with_name("small_training.py"), training)
    job = training / "job.yaml"
    job.write_text(job.read_text().replace("fine_tune.py", "small_training.py"))
    data = root / "data"
    data.mkdir()
    for part in ("train", "test"):
        row = {"messages": [{"role": "user", "content": part}, {"role": "assistant", "content": "yes"}]}
        (data / f"{part}_data.jsonl").write_text(json.dumps(row) + "\n")
    return Rehearsed(rehearsed.home, rehearsed.store, root)


@pytest.fixture(scope="module")
def deployable(
    request: pytest.FixtureRequest, rehearsed: Rehearsed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rehearsed]:
    """The same emulator, a checkout whose runs and server are small, an endpoint that is the module's own."""
    from tests.azure_backend.deployable import Deployable, checkout

    root = copy_of_the_checkout(tmp_path_factory.mktemp("serving"))
    checkout(root, real=getattr(request.module, "REAL_SERVER", False))
    name = request.module.__name__.rpartition(".test_")[2].replace("_", "-")
    running = Deployable(rehearsed.home, rehearsed.store, root, endpoint=f"tested-{name}")
    try:
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def served(rehearsed: Rehearsed, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory):
    """The same emulator, and a checkout with runs to deploy; see served.py."""
    from tests.azure_backend import served

    root = copy_of_the_checkout(tmp_path_factory.mktemp("served"))
    served.make_runs(root / "runs", tiny_model)
    served.make_hasty(root / "serving" / "deployment.yaml")
    return served.Served(rehearsed.home, rehearsed.store, root)
