"""A checkout of the kit in which trainings take a second: its job runs small_job.py instead of fine_tune.py."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from devtools.settings import ROOT, variables

#: A uid that no passwd file has, for tests that run as root: files must belong to the caller, whoever that is.
SOMEBODY = 54321
#: Linux's numbers of what root in a container often may not (capabilities(7)).
DAC_READ_SEARCH, SYS_ADMIN = 2, 21


class Checkout:
    """A copy of devtools/ and training/ in a folder whose name has a blank, and its command line."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.environment = {
            name: value for name, value in os.environ.items() if name not in variables() or name == "DOCKER_HOST"
        }
        self._started: list[subprocess.Popen] = []
        self.environment |= {"HOME": str(folder / "home"), "PYTHONDONTWRITEBYTECODE": "1"}

    def write(self, name: str, text: str) -> Path:
        """Write a file below the checkout, for whoever the command line runs as."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        self.give_away()
        return file

    def give_away(self) -> None:
        """Make everything belong to the user that the command line runs as."""
        if os.getuid() == 0:
            for path in (self.root, *self.root.rglob("*")):
                os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)

    def start(self, *arguments: str, terminal: int | None = None, **environment: str) -> subprocess.Popen:
        """Start `phikit ARGUMENTS` in the checkout, as a user other than root, with access to the engine's socket.

        Its output goes to the file descriptor of a `terminal`, else into pipes.
        """
        process = subprocess.Popen(
            [*as_somebody(), sys.executable, "-m", "devtools.cli", *arguments],
            cwd=self.root,
            env=self.environment | environment,
            stdout=terminal or subprocess.PIPE,
            stderr=terminal or subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def stop_all(self) -> None:
        """End what a failed test left running; the second signal is the one that does not wait."""
        for process in self._started:
            for number in (signal.SIGTERM, signal.SIGINT):
                process.send_signal(number)
            process.wait(timeout=60)

    def phikit(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Run `phikit ARGUMENTS` to its end."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def as_somebody() -> list[str]:
    """The start of a command line that goes on as SOMEBODY where root runs the tests; else nothing."""
    if os.getuid():
        return []
    command = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}"]
    socket = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
    command.append(f"--groups={socket.stat().st_gid}" if socket.exists() else "--clear-groups")
    if has_capability(DAC_READ_SEARCH):
        # root's Python may lie where only root may look: reading is allowed, writing is not
        command += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return command


def has_capability(number: int) -> bool:
    """Whether this process may do what the capability allows."""
    (mask,) = re.findall(r"^CapPrm:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> number & 1)


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    """See Checkout; not below pytest's own folder, which only root may enter when root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="phikit test ") as name:
        root = Path(name)
        root.chmod(0o755)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "devtools", root / "devtools", ignore=ignored)
        shutil.copytree(ROOT / "training", root / "training", ignore=ignored)
        shutil.copy(Path(__file__).with_name("small_job.py"), root / "training" / "small_job.py")
        job = yaml.safe_load((root / "training" / "job.yaml").read_text())
        job["command"] = job["command"].replace("fine_tune.py", "small_job.py")
        job["environment_variables"] = {"FROM_THE_JOB": "yes"}
        (root / "training" / "job.yaml").write_text(yaml.safe_dump(job))
        for part in ("train", "test"):
            row = '{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "yes"}]}\n'
            (root / "data").mkdir(exist_ok=True)
            (root / "data" / f"{part}_data.jsonl").write_text(row % part)
        (root / "home").mkdir()
        made = Checkout(root)
        made.give_away()
        yield made
        made.stop_all()


@pytest.fixture(params=["venv", pytest.param("docker", marks=pytest.mark.docker)])
def backend(request) -> str:
    """Each backend in turn; the container's needs an engine with the runtime image."""
    if request.param == "docker":
        request.getfixturevalue("runtime_image")
    return request.param


@pytest.fixture(scope="session")
def runtime_image(engine) -> str:
    """The name of the runtime image, built if it is missing; these tests care for the container, not for its locks."""
    from devtools import image
    from devtools.settings import Settings

    if image.state(engine, "phikit-runtime:cpu") == "missing":
        image.build("phikit-runtime:cpu", Settings.load())
    return "phikit-runtime:cpu"
