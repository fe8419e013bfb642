"""The MLflow runs behind jobs: Azure calls a run by its job's name, the real server by an id of its own.

experiment = begin(rehearsal, "job-1", "my-experiment")
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx

from devtools.rehearsal import API_HOST, workspace_id

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

KIND = "mlflow"
API = "/api/2.0/mlflow"
TIMEOUT = 60
STATES = {"Completed": "FINISHED", "Failed": "FAILED", "Canceled": "KILLED"}


def tracking_uri() -> str:
    """What MLflow is told of the workspace's tracking server."""
    return f"azureml://{API_HOST}/mlflow/v1.0{workspace_id()}"


def begin(rehearsal: Rehearsal, job: str, experiment: str) -> str:
    """Have the run of a job, running; the id of its experiment."""
    known = rehearsal.store.get(KIND, job)
    if known is None:
        number = _experiment(rehearsal, experiment)
        told = {"experiment_id": number, "run_name": job, "start_time": int(time.time() * 1000)}
        made = _ask(rehearsal, "POST", "/runs/create", told)["run"]["info"]
        known = rehearsal.store.put(
            KIND, job, {"run": made["run_id"], "experiment": number, "experiment_name": experiment}
        )
    else:
        _ask(rehearsal, "POST", "/runs/update", {"run_id": known["run"], "status": "RUNNING"})
    return known["experiment"]


def end(rehearsal: Rehearsal, job: str, state: str) -> None:
    """Close the run of a job that has ended; one that never began has none."""
    if known := rehearsal.store.get(KIND, job):
        told = {"run_id": known["run"], "status": STATES[state], "end_time": int(time.time() * 1000)}
        _ask(rehearsal, "POST", "/runs/update", told)


def names(rehearsal: Rehearsal) -> dict[str, str]:
    """Jobs' names by the ids of their runs."""
    return {body["run"]: name for name, body in rehearsal.store.all(KIND)}


def _experiment(rehearsal: Rehearsal, name: str) -> str:
    found = _ask(rehearsal, "GET", "/experiments/get-by-name", {"experiment_name": name}, accept=(200, 404))
    if "experiment" in found:
        return found["experiment"]["experiment_id"]
    return _ask(rehearsal, "POST", "/experiments/create", {"name": name})["experiment_id"]


def _ask(
    rehearsal: Rehearsal, method: str, path: str, told: dict[str, Any], accept: tuple[int, ...] = (200,)
) -> dict[str, Any]:
    address = f"http://127.0.0.1:{rehearsal.tracking_port}{API}{path}"
    with httpx.Client(trust_env=False, timeout=TIMEOUT) as client:
        sent = {"params": told} if method == "GET" else {"json": told}
        answer = client.request(method, address, **sent)
    if answer.status_code not in accept:
        answer.raise_for_status()
    return answer.json()
