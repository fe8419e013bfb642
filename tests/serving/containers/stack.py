"""A checkout of its own with compose.yaml, and a compose project over it.

stack = Stack(tmp_path, tiny_model); stack.up("scoring")
"""

import os
import shutil
import subprocess
from pathlib import Path

from docker.models.containers import Container

from devtools.local_server import free_port
from devtools.models import open_up
from devtools.settings import ROOT, variables
from docker import DockerClient

#: Each service's variable for its port on this machine, but for the scoring server's.
PAGES = [f"PHIKIT_{name}_PORT" for name in ("MLFLOW", "FLOW", "CHAT", "AZURE_CHAT", "BASE")]
PORTS = ("PHIKIT_SERVE_PORT", *PAGES)


class Stack:
    """compose.yaml with the code that it mounts and one run, whose files are readable as the command line leaves them.

    Args:
        model: the model directory of that run.
        base: its base model's, where it kept one.
    """

    def __init__(self, folder: Path, model: Path, base: Path | None = None) -> None:
        self.folder = folder
        shutil.copy(ROOT / "compose.yaml", folder)
        for name in ("docker", "serving", "training", "flows"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".promptflow"))
        run = folder / "runs" / "first"
        shutil.copytree(model, run / "model")
        if base:
            shutil.copytree(base, run / "base")
        (folder / "runs" / "latest").symlink_to("first")
        open_up(folder / "runs")
        self.ports = {name: free_port() for name in PORTS}
        self.port = self.ports["PHIKIT_SERVE_PORT"]
        self.project = f"phikit-{self.port}"
        own = {name: value for name, value in os.environ.items() if name not in variables() or name == "DOCKER_HOST"}
        ports = {name: str(port) for name, port in self.ports.items()}
        self._environment = own | ports | {"COMPOSE_PROJECT_NAME": self.project}

    def compose(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess:
        """Run `docker compose` to its end."""
        command = ["docker", "compose", *arguments]
        environment = self._environment | settings
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=900)

    def up(self, *words: str, **settings: str) -> None:
        """Start services and wait until they are healthy; `words` end a command line that begins with `--profile`s."""
        profiles = [word for word in words if word.startswith("--profile")]
        services = [word for word in words if word not in profiles]
        done = self.compose(*profiles, "up", "--wait", *services, **settings)
        assert done.returncode == 0, done.stderr + self.compose("logs").stdout[-4000:]

    def container(self, engine: DockerClient, service: str) -> Container:
        """The one container of a service."""
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        (container,) = engine.containers.list(all=True, filters={"label": labels})
        return container

    def down(self) -> None:
        """End and remove all of it, the volumes too."""
        done = self.compose("--profile=*", "down", "--timeout", "1", "--volumes")
        assert done.returncode == 0, done.stderr
