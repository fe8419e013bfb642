"""A run's artifacts: what there is, and addresses to read and write them at.

Runs are jobs, and what somebody began with MLflow beside of jobs. Each has a folder of its own in the storage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devtools.rehearsal import API_HOST, WORKSPACE_PATH
from devtools.rehearsal.assets import addresses
from devtools.rehearsal.storage import routes as datastores
from devtools.rehearsal.store import Document
from devtools.rehearsal.tracking import runs
from devtools.rehearsal.wire import Call, Route, WireError, missing

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal


def place(rehearsal: Rehearsal, run: str) -> tuple[str, str]:
    """Container and path of a run's artifacts."""
    found = addresses.blob(rehearsal, addresses.artifacts(run))
    assert found
    return found


def list_all(call: Call) -> Document:
    """All artifacts of a run, or those below `path`."""
    run, wanted = _run(call), call.query.get("path") or ""
    return {"value": [_artifact(run, one) for one in _found(call, run, wanted)], "continuationToken": None}


def create(call: Call) -> Document:
    """Addresses that artifacts can be written to."""
    run = _run(call)
    paths = [str(one.get("path") or "") for one in (call.body or {}).get("paths") or []]
    allowed = "rcw" if datastores.permissions(call.rehearsal) == datastores.ALL else "r"
    return {
        "artifacts": {path: _artifact(run, path) for path in paths},
        "artifactContentInformation": {path: _content(call, run, path, allowed) for path in paths},
        "errors": {},
    }


def content_information(call: Call) -> Document:
    """The address that one artifact can be read at."""
    run, path = _run(call), call.query.get("path") or ""
    container, base = place(call.rehearsal, run)
    if not call.rehearsal.blobs.exists(container, base + path):
        raise WireError(404, "NotFound", f"The artifact {path} of the run {run} was not found.")
    return _content(call, run, path, "r")


def content_by_prefix(call: Call) -> Document:
    """The addresses of all artifacts whose paths begin so."""
    run, prefix = _run(call), call.query.get("path") or ""
    return {
        "value": [_content(call, run, path, "r") for path in _found(call, run, prefix)],
        "continuationToken": None,
    }


def _run(call: Call) -> str:
    """The run that the path names; raises WireError where there is none."""
    name = call.params["run"]
    if call.rehearsal.store.get("jobs", name) is None and not runs.exists(call.rehearsal, name):
        raise missing("Run", name)
    return name


def _found(call: Call, run: str, prefix: str) -> list[str]:
    container, base = place(call.rehearsal, run)
    return [blob.removeprefix(base) for blob, _, _ in call.rehearsal.blobs.list(container, base + prefix)]


def _artifact(run: str, path: str) -> dict[str, Any]:
    origin = {"origin": "ExperimentRun", "container": f"dcid.{run}", "path": path}
    return {"artifactId": f"ExperimentRun/dcid.{run}/{path}", **origin, "etag": None, "createdTime": None}


def _content(call: Call, run: str, path: str, permissions: str) -> dict[str, Any]:
    container, base = place(call.rehearsal, run)
    uri = call.rehearsal.blobs.url(container, base + path, permissions=permissions)
    return {"contentUri": uri, "origin": "ExperimentRun", "container": f"dcid.{run}", "path": path}


ROUTES = [
    Route(
        method, API_HOST, f"/history/v1.0{WORKSPACE_PATH}/{kind}/{{experiment}}/runs/{{run}}/artifacts{tail}", handler
    )
    for kind in ("experiments", "experimentids")
    for method, tail, handler in (
        ("GET", "", list_all),
        ("GET", "/path", list_all),
        ("POST", "/batch/metadata", create),
        ("GET", "/contentinfo", content_information),
        ("GET", "/prefix/contentinfo", content_by_prefix),
    )
]
