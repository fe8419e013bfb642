"""What the tests of the managed endpoint share: a checkout with runs to deploy, and what the service holds of it.

`served.live()` has an endpoint with a model behind it, deployed if it is not there: whichever test comes first.
"""

import json
import os
import pty
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devtools.rehearsal.resources import envelope
from tests.azure_backend.conftest import Rehearsed

#: The name that the workspace gives an endpoint of the kit's.
NAME = "phikit-00000005"
DEPLOY = ("azure", "deploy", "--yes")
#: What only looks, of the calls that are no GET: keys, logs, secrets of a datastore.
LOOKS = re.compile(r"(?i)/(listkeys|list-?secrets|getlogs|default|startPendingUpload)$|/oauth2/|/token$")


@dataclass
class Served(Rehearsed):
    """A checkout whose runs `one`, `two` answer alike, and `broken` does not load."""

    def deploy(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Run `phikit azure deploy --yes ARGUMENTS` to its end."""
        return self.phikit(*DEPLOY, *arguments, **environment)

    def live(self) -> str:
        """The deployment that has all of the traffic; run one is deployed where none has."""
        if self.store.get("endpoints", NAME) is None or not self.traffic:
            done = self.deploy("--run", "one")
            assert done.returncode == 0, done.stderr
        (name,) = self.traffic
        return name

    @property
    def endpoint(self) -> dict:
        """The endpoint's document, keys and all."""
        found = self.store.get("endpoints", NAME)
        assert found
        return found

    @property
    def traffic(self) -> dict[str, int]:
        """Who gets how much."""
        return {name: share for name, share in self.endpoint["properties"]["traffic"].items() if share}

    @property
    def deployments(self) -> dict[str, dict]:
        """The deployments' documents."""
        return {key.partition("/")[2]: body for key, body in self.store.all("deployments", f"{NAME}/")}

    @property
    def run_of_all(self) -> str:
        """The run whose model has all of the traffic."""
        ((name, share),) = self.traffic.items()
        assert share == 100
        return self.deployments[name]["tags"]["run"]

    @contextmanager
    def somebodys(self) -> Iterator[str]:
        """An endpoint that the kit did not make, as long as the block lasts; its name."""
        name = "somebodys"
        properties = {
            "authMode": "Key",
            "traffic": {},
            "mirrorTraffic": {},
            "properties": {},
            "provisioningState": "Succeeded",
            "scoringUri": f"https://{name}.eastus2.inference.ml.azure.com/score",
        }
        document = envelope(f"onlineEndpoints/{name}", properties, None) | {"location": "eastus2", "tags": {}}
        self.store.put("endpoints", name, document | {"kind": "Managed", "identity": {"type": "SystemAssigned"}})
        try:
            yield name
        finally:
            self.store.delete("endpoints", name)

    def changes(self, since: int) -> list[str]:
        """What was asked of the control plane after so many calls, but for what only looks."""
        return [
            f"{call['method']} {call['path'].partition('/workspaces/')[2].partition('/')[2]}"
            for call in self.calls()[since:]
            if call["host"] == "management.azure.com" and call["method"] != "GET" and not LOOKS.search(call["path"])
        ]

    def answered(self, *arguments: str, reply: str) -> tuple[int, str]:
        """Run `phikit ARGUMENTS` at a terminal and answer its question; its exit code and what it showed."""
        ours, theirs = pty.openpty()
        process = self.start(*arguments, terminal=theirs)
        os.close(theirs)
        os.write(ours, f"{reply}\n".encode())
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.close(ours)
        return process.wait(timeout=120), shown.decode()


def errors(done: subprocess.CompletedProcess) -> list[str]:
    """What is wrong, of what a command said."""
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def make_runs(runs: Path, model: Path) -> None:
    """The runs, of a model that has learned the sample; the newest whole one is `one`."""
    for name in ("one", "two", "broken"):
        run = runs / name
        shutil.copytree(model, run / "model")
        (run / "job.json").write_text(json.dumps({"inputs": {"recipe": "tiny_cpu"}, "created": name}))
        (run / "run.json").write_text(json.dumps({"state": "finished"}))
        (run / "model" / "which.txt").write_text(name)
    (runs / "unfinished").mkdir()
    (runs / "unfinished" / "job.json").write_text("{}")
    (runs / "latest").symlink_to("one")
    (weights,) = (runs / "broken" / "model").rglob("model.safetensors")
    weights.write_bytes(b"no weights")


def make_hasty(deployment: Path) -> None:
    """Have a deployment's readiness asked every second: a small model needs no ten."""
    text, readiness, probe = deployment.read_text().rpartition("readiness_probe:")
    for key in ("initial_delay", "period"):
        probe = re.sub(rf"( {key}:) \d+", r"\1 1", probe)
    deployment.write_text(text + readiness + probe)
