"""A run's details, its data and its artifacts, as the SDK's stream and download and azureml-mlflow ask for them."""

from __future__ import annotations

from typing import Any

from devtools.rehearsal import API_HOST, LOCATION, WORKSPACE_ID, WORKSPACE_PATH
from devtools.rehearsal.assets import addresses
from devtools.rehearsal.history import artifacts
from devtools.rehearsal.jobs.execution import ENDED, KIND
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Call, Route, missing

#: Folders of a job's artifacts that are its logs.
LOGS = ("user_logs/", "system_logs/", "logs/")
#: What the run history calls an output, and its type.
ASSET = f"azureml://locations/{LOCATION}/workspaces/{WORKSPACE_ID}/data/"
TYPES = {"uri_file": "UriFile", "uri_folder": "UriFolder", "mlflow_model": "MLFlowModel", "custom_model": "CustomModel"}


def details(call: Call) -> Document:
    """How a run stands, and the addresses of its logs."""
    job = _job(call, call.params["run"])
    container, path = artifacts.place(call.rehearsal, job["name"])
    blobs = call.rehearsal.blobs
    found = [name.removeprefix(path) for name, _, _ in blobs.list(container, path)]
    return {
        **_state(job),
        "warnings": None,
        "inputDatasets": [],
        "outputDatasets": [],
        "runDefinition": None,
        "logFiles": {
            name: blobs.url(container, path + name, permissions="r") for name in found if name.startswith(LOGS)
        },
        "submittedBy": job["systemData"]["createdBy"],
    }


def run(call: Call) -> Document:
    """A run's metadata."""
    return _run(_job(call, call.params["run"]))


def data(call: Call) -> Document:
    """A run's metadata, asked for by name in the body."""
    job = _job(call, str((call.body or {}).get("runId") or ""))
    return {"runMetadata": _run(job), "runDefinition": None, "jobSpecification": None, "systemSettings": None}


def change(call: Call) -> Document:
    """Describe, archive or restore a run; tags and properties come to those that it has."""
    job, sent = _job(call, call.params["run"]), call.body or {}

    def changed(document: Document) -> None:
        told = document["properties"]
        for key in ("displayName", "description"):
            if sent.get(key) is not None:
                told[key] = sent[key]
        if sent.get("hidden") is not None:
            told["isArchived"] = bool(sent["hidden"])
        for key in ("tags", "properties"):
            more = {name: str(value) for name, value in (sent.get(key) or {}).items() if value is not None}
            told[key] = (told.get(key) or {}) | more

    return _run(call.rehearsal.store.change(KIND, job["name"], changed) or job)


def children(call: Call) -> Document:
    """None: command jobs have no runs below theirs."""
    _job(call, call.params["run"])
    return {"value": [], "continuationToken": None}


def services(call: Call) -> Document:
    """None: there are no interactive services on a node."""
    _job(call, call.params["run"])
    return {"instances": {}}


def _job(call: Call, name: str) -> Document:
    job = call.rehearsal.store.get(KIND, name)
    if job is None:
        raise missing("Run", name)
    return job


def _state(job: Document) -> dict[str, Any]:
    told, own = job["properties"], job.get("_", {})
    times = own.get("times", {})
    ended = next((times[state] for state in ENDED if state in times), None)
    return {
        "runId": job["name"],
        "status": told["status"],
        "startTimeUtc": times.get("Running"),
        "endTimeUtc": ended,
        "error": {"error": own["error"]} if told["status"] == "Failed" and "error" in own else None,
        "target": str(told.get("computeId", "")).rpartition("/")[2],
        "tags": told.get("tags") or {},
        "properties": told.get("properties") or {},
    }


def _run(job: Document) -> dict[str, Any]:
    told = job["properties"]
    outputs = {
        key: {
            "assetId": ASSET + addresses.OUTPUT.format(job=job["name"], name=key) + "/versions/1",
            "type": TYPES.get(one.get("jobOutputType", ""), "UriFolder"),
        }
        for key, one in (told.get("outputs") or {}).items()
        # (with it jobs.stream would look for logs in the storage, and find that it may not)
        if key != "default"
    }
    return {
        **_state(job),
        "rootRunId": job["name"],
        "displayName": told.get("displayName"),
        "hidden": bool(told.get("isArchived")),
        "description": told.get("description"),
        "createdUtc": job["systemData"]["createdAt"],
        "inputs": {},
        "outputs": outputs,
    }


_HISTORY = f"/history/v1.0{WORKSPACE_PATH}"
_ONE = _HISTORY + "/runs/{run}"
_OF_EXPERIMENT = _HISTORY + "/experiments/{experiment}/runs/{run}"
ROUTES = [
    Route("GET", API_HOST, _ONE, run),
    Route("GET", API_HOST, _OF_EXPERIMENT, run),
    Route("PATCH", API_HOST, _ONE, change),
    Route("PATCH", API_HOST, _OF_EXPERIMENT, change),
    Route("GET", API_HOST, _ONE + "/details", details),
    Route("GET", API_HOST, _OF_EXPERIMENT + "/details", details),
    Route("GET", API_HOST, _ONE + "/children", children),
    Route("GET", API_HOST, _ONE + "/serviceinstances/{node}", services),
    Route("POST", API_HOST, f"{_HISTORY}/rundata", data),
    *artifacts.ROUTES,
]
