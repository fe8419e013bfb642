"""Small deployments: a server of a few lines in the place of the kit's, which starts at once and does as it is told.

It lies in a folder that the runtime image's own command takes for the scoring server's code, so that it runs in a
container as well as in a process.
"""

import threading
import uuid
from collections import Counter
from pathlib import Path

import httpx
import requests
from azure.ai.ml import MLClient
from azure.ai.ml.entities import (
    CodeConfiguration,
    Environment,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    Model,
    OnlineRequestSettings,
    ProbeSettings,
)

from devtools.rehearsal import WORKSPACE, resource_id
from tests.rehearsal.conftest import Running
from tests.rehearsal.raw import Arm
from tests.rehearsal.test_wire_models import problems

IMAGE = "phikit-runtime:cpu"
PORT = 5001
ROUTES = {
    "liveness_route": {"path": "/health", "port": PORT},
    "readiness_route": {"path": "/ready", "port": PORT},
    "scoring_route": {"path": "/answer", "port": PORT},
}
SERVER = """
import json, os, pathlib, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

told = os.environ
begun = time.monotonic()
dead, waiting = threading.Event(), []
print("serving as", told.get("ANSWER"), flush=True)
if told.get("DIE_AT_START"):
    sys.exit("there is no model to serve")
files = [file for file in pathlib.Path(told["AZUREML_MODEL_DIR"]).rglob("*") if file.is_file()]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, body, **headers):
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def piece(self, content):
        self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(content), content))
        self.wfile.flush()

    def do_GET(self):
        if self.path == "/health":
            return self.reply(500 if dead.is_set() or told.get("UNWELL") else 200, "live")
        if self.path == "/ready":
            late = time.monotonic() - begun < float(told.get("READY_AFTER", 0))
            return self.reply(503 if late else 200, "ready")
        if self.path == "/busy":
            return self.reply(200, waiting)
        self.reply(200, {"path": self.path})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked.get("die"):
            os._exit(3)
        if asked.get("sicken"):
            dead.set()
        if "wait" in asked:
            waiting.append(asked["wait"])
            time.sleep(asked["wait"])
        if "pieces" in asked:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(asked["pieces"]):
                self.piece(b"data: %d\\n\\n" % number)
                time.sleep(asked.get("pause", 0))
                if asked.get("break_off"):
                    os._exit(4)
            return self.piece(b"")
        self.reply(
            asked.get("status", 200),
            {
                "answer": told.get("ANSWER"),
                "path": self.path,
                "model": [file.read_text() for file in files],
                "headers": dict(self.headers),
                "process": os.getpid(),
                "script": told["AZUREML_ENTRY_SCRIPT"],
            },
            X_Own="kept",
        )

    def log_message(self, *_):
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer((told.get("HOST", "0.0.0.0"), int(told["PORT"])), Handler).serve_forever()
"""


class Serving:
    """What a test of endpoints does with the SDK, in fewer words."""

    def __init__(self, ml: MLClient, folder: Path) -> None:
        self.ml, self.arm = ml, Arm()
        self._code = folder / "serving"
        self._code.mkdir(parents=True)
        (self._code / "__main__.py").write_text(SERVER)
        # by this one the image's command knows a scoring server
        (self._code / "engines.py").touch()
        weights = folder / "weights.txt"
        weights.write_text("small")
        name = f"small-{uuid.uuid4().hex[:6]}"
        self.model = ml.models.create_or_update(Model(name=name, version="7", path=str(weights), type="custom_model"))
        self.environment = ml.environments.create_or_update(
            Environment(name=name, version="1", image=IMAGE, inference_config=ROUTES)
        )

    def endpoint(self, **options: object) -> str:
        """A new endpoint's name."""
        name = f"small-{uuid.uuid4().hex[:8]}"
        self.ml.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name=name, **options)).result()
        return name

    def deployment(self, endpoint: str, name: str = "blue", **options) -> ManagedOnlineDeployment:
        """A deployment as it is sent; `variables` go to the server."""
        told = {"ANSWER": name, "PORT": str(PORT), "HOST": "0.0.0.0"} | options.pop("variables", {})
        probe = options.pop("probe", {})
        settings = {
            "model": self.model,
            "environment": self.environment,
            "code_configuration": CodeConfiguration(code=str(self._code), scoring_script="__main__.py"),
            "environment_variables": told,
            "instance_type": "Standard_F2s_v2",
            "instance_count": 1,
            "liveness_probe": ProbeSettings(initial_delay=1, period=1, timeout=5, failure_threshold=3),
            "readiness_probe": ProbeSettings(**{"initial_delay": 1, "period": 1, "timeout": 5} | probe),
            "request_settings": OnlineRequestSettings(
                request_timeout_ms=20_000, max_concurrent_requests_per_instance=20
            ),
        }
        return ManagedOnlineDeployment(name=name, endpoint_name=endpoint, **settings | options)

    def deploy(self, endpoint: str, name: str = "blue", **options) -> ManagedOnlineDeployment:
        """Start a deployment and wait for it."""
        return self.ml.online_deployments.begin_create_or_update(self.deployment(endpoint, name, **options)).result()

    def give(self, endpoint: str, **traffic: int) -> None:
        """Set the traffic."""
        found = self.ml.online_endpoints.get(endpoint)
        found.traffic = traffic
        self.ml.online_endpoints.begin_create_or_update(found).result()

    def key(self, endpoint: str) -> str:
        """The primary key."""
        return self.ml.online_endpoints.get_keys(endpoint).primary_key

    def id_of(self, endpoint: str) -> str:
        """The endpoint's id."""
        return resource_id("workspaces", WORKSPACE) + f"/onlineEndpoints/{endpoint}"

    def ask(
        self, endpoint: str, body: object = None, *, key: str | None = None, path: str = "/score", **options
    ) -> requests.Response:
        """One request, with the primary key unless another is given; `deployment` names one."""
        headers = {"Authorization": f"Bearer {self.key(endpoint) if key is None else key}"} | options.pop("headers", {})
        if deployment := options.pop("deployment", None):
            headers["azureml-model-deployment"] = deployment
        address = f"https://{endpoint}.eastus2.inference.ml.azure.com{path}"
        method = options.pop("method", "POST")
        return requests.request(
            method, address, json={} if body is None else body, headers=headers, timeout=60, **options
        )


def address(endpoint: str) -> str:
    """Where an endpoint is asked."""
    return f"https://{endpoint}.eastus2.inference.ml.azure.com/score"


class Load:
    """Clients that ask without a pause until they are told to stop, each on one connection."""

    def __init__(self, serving: Serving, endpoint: str, clients: int = 4) -> None:
        self.told: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._address, self._key = address(endpoint), serving.key(endpoint)
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=30, headers={"Authorization": f"Bearer {self._key}"}) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self._address, json={"wait": 0.02})
                    if answer.status_code == 200:
                        self.told[answer.json()["answer"]] += 1
                    else:
                        self.failures.append(f"{answer.status_code} {answer.text}")
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))


def misfits(rehearsal: Running) -> list[str]:
    """What of the answers about endpoints the SDK's own models would not have; Azure Monitor's have none there."""
    calls = [call for call in rehearsal.calls() if "/onlineEndpoints" in call["path"]]
    calls = [call for call in calls if "/Microsoft.Insights/" not in call["path"]]
    assert calls
    return [f"{call['method']} {call['path']}: {problem}" for call in calls for problem in problems(call)]
