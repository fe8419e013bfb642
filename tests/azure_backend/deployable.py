"""A checkout whose runs and scoring server are small, and what tests of endpoints do with it.

    def test_something(deployable: Deployable): ...      # the fixture is in conftest.py

Each module of tests has an emulator of its own, which is gone after it, with all that it started.
"""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.azure_backend.conftest import Rehearsed

SMALL = Path(__file__).with_name("small_server.py")
#: The deployment's file, with less patience before its probes.
SOON = (
    ("initial_delay: 10", "initial_delay: 1"),
    ("initial_delay: 30", "initial_delay: 1"),
    ("period: 10", "period: 1"),
)


@dataclass
class Deployable(Rehearsed):
    """A checkout with an endpoint's name."""

    endpoint: str = ""
    models: dict[str, Path] = field(default_factory=dict)

    @property
    def client(self) -> dict[str, str]:
        # (who signs in by a secret waits for no other program)
        return super().client | {"PHIKIT_AZURE_ENDPOINT": self.endpoint, "PHIKIT_AZURE_SIGN_IN": "environment"}

    def model(self, name: str, **behaviour: object) -> str:
        """A whole run of that name whose model answers with it, and behaves so."""
        folder = self.root / "runs" / name / "model"
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: none\n")
            (folder / "behaviour.json").write_text(json.dumps({"answer": f"I am {name}."} | behaviour))
            job = {"inputs": {"recipe": "small"}, "files": {}, "created": "2026-11-22T10:00:00+00:00"}
            (folder.parent / "job.json").write_text(json.dumps(job))
            (folder.parent / "run.json").write_text(json.dumps({"state": "finished"}))
        return name

    def deploy(self, run: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """`phikit azure deploy --run RUN --yes`, to its end."""
        return self.phikit("azure", "deploy", "--run", run, "--yes", *arguments, **environment)

    def begin(self, run: str, *arguments: str, **environment: str) -> subprocess.Popen:
        """The same, begun."""
        return self.start("azure", "deploy", "--run", run, "--yes", *arguments, **environment)

    def start_program(self, *command: str) -> subprocess.Popen:
        """Start any program in the checkout, signed in; its input stays open."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=self.root, env=self.client, text=True, **pipes)
        self.started.append(process)
        return process

    def made(self) -> dict[str, Any] | None:
        """The endpoint as the service has it; None: there is none."""
        return self.store.get("endpoints", self.endpoint)

    def traffic(self) -> dict[str, int]:
        """Who gets how much."""
        found = (self.made() or {}).get("properties", {}).get("traffic", {})
        return {name: percent for name, percent in found.items() if percent}

    def states(self) -> dict[str, str]:
        """The deployments' states by their names."""
        found = self.store.all("deployments", f"{self.endpoint}/")
        return {one["name"]: one["properties"]["provisioningState"] for _, one in found}

    def ask(self, key: str = "", deployment: str = "") -> requests.Response:
        """One question to the endpoint."""
        headers = {"Authorization": f"Bearer {key or self.made()['_']['primary']}"}
        if deployment:
            headers["azureml-model-deployment"] = deployment
        told = self.client
        return requests.post(
            f"https://{self.endpoint}.eastus2.inference.ml.azure.com/score",
            json={"input_data": ["Who?"]},
            headers=headers,
            proxies={"https": told["HTTPS_PROXY"]},
            verify=told["REQUESTS_CA_BUNDLE"],
            timeout=60,
        )

    def answer(self) -> str:
        """What it answers."""
        answer = self.ask()
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

    def changes(self, since: int) -> list[tuple[str, str]]:
        """Method and last words of the path of each call that changed something, after so many."""
        found = [call for call in self.calls()[since:] if call["method"] in ("PUT", "PATCH", "DELETE", "POST")]
        found = [call for call in found if call["host"] == "management.azure.com" and self.endpoint in call["path"]]
        return [(call["method"], call["path"].partition(f"/{self.endpoint}")[2]) for call in found]


def until(condition: Callable[[], Any], what: str, seconds: float = 90) -> None:
    """Look until `condition` holds; fail after some time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        threading.Event().wait(0.01)


def error_of(done: subprocess.CompletedProcess) -> str:
    """The one line of what went wrong."""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(line) < 600
    return line


def checkout(root: Path, real: bool) -> None:
    """Make a copy of the checkout one whose deployments start soon; not `real`: with the small server."""
    file = root / "serving" / "deployment.yaml"
    text = file.read_text()
    for before, after in SOON:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)
    if not real:
        for code in (root / "serving").glob("*.py"):
            code.unlink()
        shutil.copy(SMALL, root / "serving" / "__main__.py")
        # by this one the image's command knows a scoring server
        (root / "serving" / "engines.py").touch()
