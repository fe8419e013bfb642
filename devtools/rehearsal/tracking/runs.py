"""The MLflow runs behind jobs: Azure calls a run by its job's name, the real server by an id of its own.

experiment = begin(rehearsal, "job-1", "my-experiment")
end(rehearsal, "job-1", "Completed")

So it is with experiments: what a job's is called on Azure follows from its name, the real server counts them. A job
waits for neither: the server, which takes its time to start, is told beside, and calls of MLflow wait for that.
"""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Callable
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import httpx

from devtools.rehearsal import API_HOST, WORKSPACE_ID, workspace_id
from devtools.rehearsal.wire import WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: Runs by their jobs' names, and experiments by what they are called on Azure.
KIND, EXPERIMENTS = "mlflow", "mlflow-experiments"
API = "/api/2.0/mlflow"
TIMEOUT = 60
STATES = {"Completed": "FINISHED", "Failed": "FAILED", "Canceled": "KILLED"}
#: What the real server is being told, by emulator and job.
_TELLING: dict[tuple[int, str], Thread] = {}
_LOCK = Lock()


def tracking_uri() -> str:
    """What MLflow is told of the workspace's tracking server."""
    return f"azureml://{API_HOST}/mlflow/v1.0{workspace_id()}"


def experiment_id(name: str) -> str:
    """What an experiment is called on Azure."""
    return str(uuid.uuid5(uuid.UUID(WORKSPACE_ID), name))


def begin(rehearsal: Rehearsal, job: str, experiment: str) -> str:
    """Have the run of a job, running; the id of its experiment."""
    _tell(rehearsal, job, lambda: _begin(rehearsal, job, experiment))
    return experiment_id(experiment)


def end(rehearsal: Rehearsal, job: str, state: str) -> None:
    """Close the run of a job that has ended; one that never began has none."""
    ended = int(time.time() * 1000)

    def tell() -> None:
        if known := rehearsal.store.get(KIND, job):
            ask(rehearsal, "POST", "/runs/update", {"run_id": known["run"], "status": STATES[state], "end_time": ended})

    _tell(rehearsal, job, tell)


def settle(rehearsal: Rehearsal) -> None:
    """Wait until the real server knows all that it was to be told."""
    for key, telling in list(_TELLING.items()):
        if key[0] == id(rehearsal):
            telling.join()
            with _LOCK:
                if _TELLING.get(key) is telling:
                    del _TELLING[key]


def real(rehearsal: Rehearsal, run: str) -> str:
    """The real server's id of a run."""
    settle(rehearsal)
    known = rehearsal.store.get(KIND, run)
    return known["run"] if known else run


def exists(rehearsal: Rehearsal, run: str) -> bool:
    """Whether the real server has a run."""
    found = ask(rehearsal, "GET", "/runs/get", {"run_id": real(rehearsal, run)}, accept=(200, 400, 404))
    return "run" in found


def inward(rehearsal: Rehearsal) -> tuple[dict[str, str], dict[str, str]]:
    """The real server's ids of runs and of experiments, by what they are called on Azure."""
    settle(rehearsal)
    return (
        {name: body["run"] for name, body in rehearsal.store.all(KIND)},
        {name: body["number"] for name, body in rehearsal.store.all(EXPERIMENTS)},
    )


def outward(rehearsal: Rehearsal) -> tuple[dict[str, str], dict[str, str]]:
    """What runs and experiments are called on Azure, by the real server's ids."""
    runs, experiments = inward(rehearsal)
    return {run: name for name, run in runs.items()}, {number: name for name, number in experiments.items()}


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


def _tell(rehearsal: Rehearsal, job: str, work: Callable[[], None]) -> None:
    """Do it beside, after what the server was to be told of the same job before."""

    def tell(before: Thread | None) -> None:
        if before:
            before.join()
        try:
            work()
        except Exception:
            # (a job can do without; whoever asks for its run is told how it stands there)
            traceback.print_exc()

    with _LOCK:
        key = (id(rehearsal), job)
        _TELLING[key] = Thread(target=tell, args=(_TELLING.get(key),), name=f"run {job}", daemon=True)
        _TELLING[key].start()


def _begin(rehearsal: Rehearsal, job: str, experiment: str) -> None:
    if known := rehearsal.store.get(KIND, job):
        ask(rehearsal, "POST", "/runs/update", {"run_id": known["run"], "status": "RUNNING"})
        return
    number = _number(rehearsal, experiment)
    rehearsal.store.put(EXPERIMENTS, experiment_id(experiment), {"number": number, "name": experiment})
    told = {"experiment_id": number, "run_name": job, "start_time": int(time.time() * 1000)}
    made = ask(rehearsal, "POST", "/runs/create", told)["run"]["info"]
    rehearsal.store.put(KIND, job, {"run": made["run_id"], "experiment_name": experiment})


def _number(rehearsal: Rehearsal, name: str) -> str:
    # (400: it is there, or another job of it began at the same time)
    made = ask(rehearsal, "POST", "/experiments/create", {"name": name}, accept=(200, 400))
    if "experiment_id" in made:
        return made["experiment_id"]
    return ask(rehearsal, "GET", "/experiments/get-by-name", {"experiment_name": name})["experiment"]["experiment_id"]
