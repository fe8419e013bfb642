"""The MLflow runs behind jobs: Azure calls a run by its job's name, the real server by an id of its own.

experiment = begin(rehearsal, "job-1", "my-experiment")
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx

from devtools.rehearsal import API_HOST, workspace_id
from devtools.rehearsal.wire import WireError

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
        made = ask(rehearsal, "POST", "/runs/create", told)["run"]["info"]
        known = rehearsal.store.put(
            KIND, job, {"run": made["run_id"], "experiment": number, "experiment_name": experiment}
        )
    else:
        ask(rehearsal, "POST", "/runs/update", {"run_id": known["run"], "status": "RUNNING"})
    return known["experiment"]


def end(rehearsal: Rehearsal, job: str, state: str) -> None:
    """Close the run of a job that has ended; one that never began has none."""
    if known := rehearsal.store.get(KIND, job):
        told = {"run_id": known["run"], "status": STATES[state], "end_time": int(time.time() * 1000)}
        ask(rehearsal, "POST", "/runs/update", told)


def real(rehearsal: Rehearsal, run: str) -> str:
    """The real server's id of a run."""
    known = rehearsal.store.get(KIND, run)
    return known["run"] if known else run


def exists(rehearsal: Rehearsal, run: str) -> bool:
    """Whether the real server has a run."""
    found = ask(rehearsal, "GET", "/runs/get", {"run_id": real(rehearsal, run)}, accept=(200, 400, 404))
    return "run" in found


def names(rehearsal: Rehearsal) -> dict[str, str]:
    """Jobs' names by the ids of their runs."""
    return {body["run"]: name for name, body in rehearsal.store.all(KIND)}


def ask(
    rehearsal: Rehearsal, method: str, path: str, told: dict[str, Any], accept: tuple[int, ...] = (200,)
) -> dict[str, Any]:
    """The real server's answer to one of MLflow's calls.

    Raises:
        WireError: it refuses the call, with its own code and words.
    """
    address = f"http://127.0.0.1:{rehearsal.tracking_port}{API}{path}"
    with httpx.Client(trust_env=False, timeout=TIMEOUT) as client:
        sent = {"params": told} if method == "GET" else {"json": told}
        answer = client.request(method, address, **sent)
    if answer.status_code not in accept:
        said = answer.json() if "json" in answer.headers.get("content-type", "") else {"message": answer.text}
        raise WireError(answer.status_code, said.get("error_code") or "TrackingFailed", str(said.get("message")))
    return answer.json()


def _experiment(rehearsal: Rehearsal, name: str) -> str:
    # (400: another job of it began at the same time)
    made = ask(rehearsal, "POST", "/experiments/create", {"name": name}, accept=(200, 400))
    if "experiment_id" in made:
        return made["experiment_id"]
    return ask(rehearsal, "GET", "/experiments/get-by-name", {"experiment_name": name})["experiment"]["experiment_id"]
