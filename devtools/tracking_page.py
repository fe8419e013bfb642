"""MLflow's own page over the local tracking store, on this machine's loopback address.

phikit mlflow
phikit mlflow --port 5050 --no-open
"""

from __future__ import annotations

import shlex
from pathlib import Path

from devtools.backend import Backend, Task
from devtools.connections import tracking_store
from devtools.errors import INTERRUPTED, OK, BadInput
from devtools.local_server import LOOPBACK, announce, free_port, is_free, url_of
from devtools.settings import ROOT, Settings

#: Seconds that the server may take to answer: it brings an old store's tables up to date first.
START = 120


def serve(backend: Backend, settings: Settings, port: int, open_page: bool, root: Path = ROOT) -> int:
    """Serve the page until Ctrl-C; raises BadInput when runs are tracked elsewhere, or the port is taken."""
    uri, folder = tracking_store(settings, root / "runs")
    if folder is None:
        raise BadInput("MLFLOW_TRACKING_URI names a server: open its own page (or unset it to see the local store)")
    if not is_free(port):
        raise BadInput(f"--port {port}: is taken; give another, say --port {free_port()}")
    # in a container, all of its addresses: only the published port leads there, and that is loopback's
    host = "0.0.0.0" if backend.name == "docker" else LOOPBACK
    task = Task(
        name="mlflow",
        command=shlex.join(
            # one worker: a person looks at it, and four would take a gigabyte
            [
                *("python", "-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"),
                *("--backend-store-uri", uri, "--artifacts-destination", str(folder / "mlartifacts")),
            ]
        ),
        code=root / "training",
        workdir=folder,
        writes=(folder,),
        # the server's own jobs (it would start seven more processes for them) are for judging traces of live traffic
        environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        network="on",
        ports={port: port},
        packages=("mlflow",),
        grace=10,
    )
    announce("MLflow", url_of(LOOPBACK, port), "/health", START, open_page=open_page)
    code = backend.run(task)
    # Ctrl-C is how one leaves the page
    return OK if code == INTERRUPTED else code
