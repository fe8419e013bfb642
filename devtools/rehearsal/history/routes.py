"""A run's details, its data and its artifacts, as the SDK's stream and download and azureml-mlflow ask for them."""

from __future__ import annotations

from typing import Any

from devtools.rehearsal import API_HOST, WORKSPACE_PATH
from devtools.rehearsal.assets import addresses
from devtools.rehearsal.jobs.execution import KIND
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Call, Route, WireError, missing

#: Folders of a job's artifacts that are its logs.
LOGS = ("user_logs/", "system_logs/", "logs/")
#: Types of outputs in the words of the run history.
TYPES = {"uri_file": "UriFile", "uri_folder": "UriFolder", "mlflow_model": "MLFlowModel", "custom_model": "CustomModel"}


def details(call: Call) -> Document:
    """How a run stands, and the addresses of its logs."""
    job = _job(call, call.params["run"])
    told, own = job["properties"], job.get("_", {})
    times = own.get("times", {})
    ended = next((times[state] for state in ("Completed", "Failed", "Canceled") if state in times), None)
    container, path = _artifacts(call, job["name"])
    blobs = call.rehearsal.blobs
    found = [name.removeprefix(path) for name, _, _ in blobs.list(container, path)]
    logs = [name for name in found if name.startswith(LOGS)]
    return {
        "runId": job["name"],
        "target": str(told.get("computeId", "")).rpartition("/")[2],
        "status": told["status"],
        "startTimeUtc": times.get("Running"),
        "endTimeUtc": ended,
        "error": {"error": own["error"]} if told["status"] == "Failed" and "error" in own else None,
        "warnings": None,
        "tags": told.get("tags") or {},
        "properties": told.get("properties") or {},
        "inputDatasets": [],
        "outputDatasets": [],
        "runDefinition": None,
        "logFiles": {name: blobs.url(container, path + name, permissions="r") for name in logs},
        "submittedBy": job["systemData"]["createdBy"],
    }


def data(call: Call) -> Document:
    """A run's metadata: what its outputs are."""
    name = str((call.body or {}).get("runId") or "")
    job = _job(call, name)
    told = job["properties"]
    outputs = {
        key: {"assetId": _asset_id(one), "type": TYPES.get(one.get("jobOutputType", ""), "UriFolder")}
        for key, one in (told.get("outputs") or {}).items()
        # (with it jobs.stream would look for logs in the storage, and find that it may not)
        if key != "default"
    }
    return {
        "runMetadata": {
            "runId": job["name"],
            "rootRunId": job["name"],
            "status": told["status"],
            "displayName": told.get("displayName"),
            "createdUtc": job["systemData"]["createdAt"],
            "target": str(told.get("computeId", "")).rpartition("/")[2],
            "tags": told.get("tags") or {},
            "properties": told.get("properties") or {},
            "inputs": {},
            "outputs": outputs,
        },
        "runDefinition": None,
        "jobSpecification": None,
        "systemSettings": None,
    }


def list_artifacts(call: Call) -> Document:
    """All artifacts of a run."""
    name = call.params["run"]
    container, path = _artifacts(call, name)
    found = [blob.removeprefix(path) for blob, _, _ in call.rehearsal.blobs.list(container, path)]
    wanted = call.query.get("path") or ""
    return {"value": [_artifact(name, one) for one in found if one.startswith(wanted)], "continuationToken": None}


def create_artifacts(call: Call) -> Document:
    """Addresses that artifacts can be written to."""
    name = call.params["run"]
    _job(call, name)
    paths = [one.get("path", "") for one in (call.body or {}).get("paths") or []]
    return {
        "artifacts": {path: _artifact(name, path) for path in paths},
        "artifactContentInformation": {path: _content(call, name, path, "rcw") for path in paths},
        "errors": {},
    }


def content_information(call: Call) -> Document:
    """The address that one artifact can be read at."""
    name, path = call.params["run"], call.query.get("path") or ""
    container, base = _artifacts(call, name)
    if not call.rehearsal.blobs.exists(container, base + path):
        raise WireError(404, "NotFound", f"The artifact {path} of the run {name} was not found.")
    return _content(call, name, path, "r")


def content_by_prefix(call: Call) -> Document:
    """The addresses of all artifacts whose paths begin so."""
    name, prefix = call.params["run"], call.query.get("path") or ""
    container, base = _artifacts(call, name)
    found = [blob.removeprefix(base) for blob, _, _ in call.rehearsal.blobs.list(container, base + prefix)]
    return {"value": [_content(call, name, path, "r") for path in found], "continuationToken": None}


def _job(call: Call, name: str) -> Document:
    job = call.rehearsal.store.get(KIND, name)
    if job is None:
        raise missing("Run", name)
    return job


def _artifacts(call: Call, job: str) -> tuple[str, str]:
    place = addresses.blob(call.rehearsal, addresses.artifacts(job))
    assert place
    return place


def _artifact(job: str, path: str) -> dict[str, Any]:
    origin = {"origin": "ExperimentRun", "container": f"dcid.{job}", "path": path}
    return {"artifactId": f"ExperimentRun/dcid.{job}/{path}", **origin, "etag": None, "createdTime": None}


def _content(call: Call, job: str, path: str, permissions: str) -> dict[str, Any]:
    container, base = _artifacts(call, job)
    uri = call.rehearsal.blobs.url(container, base + path, permissions=permissions)
    return {"contentUri": uri, "origin": "ExperimentRun", "container": f"dcid.{job}", "path": path}


def _asset_id(output: dict[str, Any]) -> str:
    return str(output.get("uri") or "")


_HISTORY = f"/history/v1.0{WORKSPACE_PATH}"
_BY_RUN = (
    f"{_HISTORY}/experiments/{{experiment}}/runs/{{run}}/artifacts",
    f"{_HISTORY}/experimentids/{{experiment}}/runs/{{run}}/artifacts",
)
ROUTES = [
    Route("GET", API_HOST, f"{_HISTORY}/runs/{{run}}/details", details),
    Route("GET", API_HOST, f"{_HISTORY}/experiments/{{experiment}}/runs/{{run}}/details", details),
    Route("POST", API_HOST, f"{_HISTORY}/rundata", data),
    *(
        Route(method, API_HOST, base + tail, handler)
        for base in _BY_RUN
        for method, tail, handler in (
            ("GET", "", list_artifacts),
            ("GET", "/path", list_artifacts),
            ("POST", "/batch/metadata", create_artifacts),
            ("GET", "/contentinfo", content_information),
            ("GET", "/prefix/contentinfo", content_by_prefix),
        )
    ),
]
