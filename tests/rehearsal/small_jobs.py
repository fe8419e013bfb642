"""Small command jobs, submitted with the real SDK, and waiting for what becomes of them.

jobs = SmallJobs(ml_client, folder)
jobs.submit("first", "print('hello')")
jobs.ends("first")
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from devtools.rehearsal import session

IMAGE = "phikit-runtime:cpu"
ENDED = ("Completed", "Failed", "Canceled")


def small_jobs(request: Any) -> SmallJobs:
    """What a module's fixture `jobs` gives; `request` is the fixture's own."""
    home = request.getfixturevalue("rehearsal").home
    client = request.getfixturevalue("ml_client")
    if session.running(home)["runner"] == "docker":
        request.getfixturevalue("runtime_image")
    return SmallJobs(client, request.getfixturevalue("tmp_path_factory").mktemp("jobs"))


class SmallJobs:
    """Jobs of one script each."""

    def __init__(self, ml_client: Any, folder: Path) -> None:
        self.client, self._folder = ml_client, folder
        self._clusters: set[str] = set()

    def cluster(self, name: str, **more: Any) -> str:
        """A cluster, made if need be; its name."""
        from azure.ai.ml.entities import AmlCompute

        told = {"size": "Standard_DS3_v2", "max_instances": 4} | more
        if name not in self._clusters:
            self.client.compute.begin_create_or_update(AmlCompute(name=name, **told)).result()
            self._clusters.add(name)
        return name

    def code(self, script: str, *files: Path) -> str:
        """A folder with a script, `work.py`, and copies of files beside it."""
        folder = self._folder / f"code-{len(list(self._folder.iterdir()))}"
        folder.mkdir()
        (folder / "work.py").write_text(script)
        for file in files:
            (folder / file.name).write_text(file.read_text())
        return str(folder)

    def make(self, name: str, script: str = "", *, arguments: str = "", **more: Any) -> Any:
        """A job that is not submitted; `more`: what azure.ai.ml.command takes."""
        from azure.ai.ml import command
        from azure.ai.ml.entities import Environment

        told = {
            "command": f"python work.py {arguments}".strip(),
            "environment": Environment(image=IMAGE),
            "experiment_name": "small",
        } | more
        if "code" not in told:
            told["code"] = self.code(script)
        if "compute" not in told:
            told["compute"] = self.cluster("small-jobs")
        return command(name=name, **told)

    def submit(self, name: str, script: str = "", **more: Any) -> Any:
        """The job as the service answers it."""
        return self.client.jobs.create_or_update(self.make(name, script, **more))

    def becomes(self, name: str, *wanted: str, seconds: float = 90) -> str:
        """Wait for one of these states; the one that it is in. Fails when it ends in another one."""
        deadline = time.monotonic() + seconds
        while (status := self.client.jobs.get(name).status) not in wanted:
            assert status not in ENDED, f"{name} is {status}: {self.log(name)}"
            assert time.monotonic() < deadline, f"{name} is {status}: {self.log(name)}"
            threading.Event().wait(0.2)
        return status

    def ends(self, name: str, seconds: float = 90) -> str:
        """Wait for its end; its last state."""
        return self.becomes(name, *ENDED, seconds=seconds)

    def says(self, name: str, words: str, seconds: float = 90) -> None:
        """Wait until its log has these words."""
        deadline = time.monotonic() + seconds
        while words not in self.log(name):
            assert time.monotonic() < deadline, self.log(name)
            threading.Event().wait(0.2)

    def log(self, name: str, file: str = "user_logs/std_log.txt") -> str:
        """What a log of it holds; empty where there is none."""
        import requests

        address = (self.details(name).get("logFiles") or {}).get(file)
        return requests.get(address, timeout=30).text if address else ""

    def details(self, name: str) -> dict[str, Any]:
        """The run history's view of it."""
        return self.client.jobs._runs_operations.get_run_details(name).as_dict()
