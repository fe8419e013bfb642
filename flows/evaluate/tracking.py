"""The evaluation's means as a run on an MLflow tracking server, over its REST API.

log({"tuned.exact_match": 0.99}, {"data": "data/test_data.jsonl"}, os.environ)

mlflow itself is not asked for: its pins and promptflow's on OpenTelemetry exclude each other.
"""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

EXPERIMENT = "phikit-evaluation"
#: Seconds until a server that does not answer is given up.
PATIENCE = 30
NOT_FOUND = 404


class TrackingError(RuntimeError):
    """The server did not take it; one line for people, and its status where it answered."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


def log(metrics: Mapping[str, float], tags: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Log one finished run to MLFLOW_TRACKING_URI, an http address, and return its ID; raises TrackingError."""
    ask = _Server(environment)
    try:
        experiment = ask("experiments/get-by-name", query=f"?experiment_name={EXPERIMENT}")["experiment"][
            "experiment_id"
        ]
    except TrackingError as error:
        if error.status != NOT_FOUND:
            raise
        experiment = ask("experiments/create", {"name": EXPERIMENT})["experiment_id"]
    now = int(time.time() * 1000)
    told = [{"key": key, "value": value} for key, value in tags.items()]
    run = ask("runs/create", {"experiment_id": experiment, "start_time": now, "tags": told})["run"]["info"]["run_id"]
    values = [{"key": key, "value": value, "timestamp": now, "step": 0} for key, value in metrics.items()]
    status = "FAILED"
    try:
        ask("runs/log-batch", {"run_id": run, "metrics": values})
        status = "FINISHED"
    finally:
        ask("runs/update", {"run_id": run, "status": status, "end_time": int(time.time() * 1000)})
    return run


class _Server:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._uri = environment.get("MLFLOW_TRACKING_URI", "").strip().rstrip("/")
        if not self._uri.startswith(("http://", "https://")):
            raise TrackingError("MLFLOW_TRACKING_URI: must be an http address to log an evaluation to")
        self._headers = {"Content-Type": "application/json"}
        name, token = environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_TOKEN")
        if name:
            pair = f"{name}:{environment.get('MLFLOW_TRACKING_PASSWORD', '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        elif token:
            self._headers["Authorization"] = f"Bearer {token}"

    def __call__(self, path: str, body: Mapping[str, Any] | None = None, query: str = "") -> Any:
        address = f"{self._uri}/api/2.0/mlflow/{path}{query}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(address, data, self._headers), timeout=PATIENCE) as got:
                return json.load(got)
        except urllib.error.HTTPError as error:
            raise TrackingError(f"MLflow's server answered {path} with status {error.code}", error.code) from None
        except (OSError, ValueError):
            raise TrackingError(f"MLflow's server did not answer {path}; check MLFLOW_TRACKING_URI") from None
