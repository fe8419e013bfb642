"""Jobs: submit, get, list, cancel, delete.

phikit rehearsal refuse preempt       # the node of a low-priority job is taken away, the job goes on elsewhere
phikit rehearsal refuse node-loss     # the node is lost, the job fails
phikit rehearsal refuse job-fails     # the command ends with exit code 1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devtools.rehearsal import MANAGEMENT_HOST, TENANT, WORKSPACE_PATH, workspace_id
from devtools.rehearsal.assets.asset import VIEWS
from devtools.rehearsal.jobs import plan
from devtools.rehearsal.jobs.execution import ENDED, KIND, Execution
from devtools.rehearsal.resources import envelope, sent_properties
from devtools.rehearsal.store import Document
from devtools.rehearsal.tracking import runs
from devtools.rehearsal.wire import Answer, Call, Route, WireError, missing, page

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

STUDIO = "https://ml.azure.com/runs/{name}?wsid={workspace}&tid={tenant}"
#: What a job keeps, and what may be changed of it.
FIXED = ("jobType", "command", "codeId", "environmentId", "computeId", "experimentName")
CHANGEABLE = ("tags", "properties", "displayName", "description", "isArchived")
#: What runs now, by name, of each emulator.
_RUNNING: dict[tuple[int, str], Execution] = {}


def put(call: Call) -> Answer:
    """Submit a job; one of that name that is there may change its tags and its display name."""
    rehearsal, name = call.rehearsal, call.params["name"]
    sent = sent_properties(call)
    if there := rehearsal.store.get(KIND, name):
        return Answer(200, _changed(rehearsal, name, there, sent))
    plan.check(rehearsal, name, sent)
    document = rehearsal.store.put(KIND, name, envelope(f"jobs/{name}", _properties(name, sent), call))
    begin(rehearsal, name)
    return Answer(201, document)


def get(call: Call) -> Document:
    """A job as it stands."""
    found = call.rehearsal.store.get(KIND, call.params["name"])
    if found is None:
        raise missing("Job", call.params["name"])
    return found


def list_all(call: Call) -> Document:
    """All jobs, newest first; those of `jobType`, `tag` and `listViewType`, where they are asked for."""
    kind, tag = call.query.get("jobType"), call.query.get("tag", "")
    view = VIEWS.get(call.query.get("listViewType", "ActiveOnly").lower())
    if view is None:
        raise WireError(
            400, "UserError", f"listViewType {call.query['listViewType']}: ActiveOnly, ArchivedOnly or All."
        )
    key, told, value = tag.partition("=")
    return page(
        [
            body
            for _, body in reversed(call.rehearsal.store.all(KIND))
            if bool(body["properties"].get("isArchived")) in view
            and (not kind or body["properties"]["jobType"].lower() == kind.lower())
            and (not key or key in (tags := body["properties"].get("tags") or {}))
            and (not told or tags[key] == value)
        ]
    )


def cancel(call: Call) -> Answer:
    """End a job; one that has ended stays as it is."""
    rehearsal, name = call.rehearsal, get(call)["name"]

    def request(document: Document) -> None:
        if document["properties"]["status"] not in ENDED:
            document["properties"]["status"] = "CancelRequested"

    document = rehearsal.store.change(KIND, name, request)
    running = _RUNNING.get((id(rehearsal), name.lower()))
    if running is None or not document or document["properties"]["status"] in ENDED:
        return Answer(200)
    running.cancel()
    return rehearsal.operations.begin(f"cancel job {name}", lambda: None)


def delete(call: Call) -> Answer:
    """Remove a job that has ended."""
    document = get(call)
    if document["properties"]["status"] not in ENDED:
        raise WireError(
            409, "Conflict", f"Job {document['name']} is {document['properties']['status']}; cancel it first."
        )
    call.rehearsal.store.delete(KIND, document["name"])
    return Answer(200)


def begin(rehearsal: Rehearsal, name: str) -> None:
    """Run a job."""
    execution = Execution(rehearsal, name)
    _RUNNING[id(rehearsal), name.lower()] = execution
    execution.begin()


def resume(rehearsal: Rehearsal) -> None:
    """What ran when the emulator went has lost its node; what waited, waits again."""
    for name, document in rehearsal.store.all(KIND):
        state = document["properties"]["status"]
        if state in ("NotStarted", "Queued"):
            begin(rehearsal, name)
        elif state not in ENDED:
            error = {
                "code": "NodeLost",
                "message": "The node that the job ran on was lost (NodeLost): the rehearsal ended.",
            }
            last = "Canceled" if state == "CancelRequested" else "Failed"
            Execution(rehearsal, name).become(last, error)
            runs.end(rehearsal, name, last)


def end(rehearsal: Rehearsal) -> None:
    """End what runs, with the emulator."""
    ours = {key: execution for key, execution in _RUNNING.items() if key[0] == id(rehearsal)}
    for execution in ours.values():
        execution.close()
    for key, execution in ours.items():
        execution.closed()
        del _RUNNING[key]


def _properties(name: str, sent: dict[str, Any]) -> dict[str, Any]:
    """A job's properties as the service answers them."""
    studio = STUDIO.format(name=name, workspace=workspace_id(), tenant=TENANT)
    outputs = {
        key: (told or {}) | {"uri": plan.output_uri(name, key, told or {})}
        for key, told in (sent.get("outputs") or {}).items()
    }
    return {
        "description": None,
        "tags": {},
        "properties": {},
        "experimentName": "Default",
        "isArchived": False,
        "parameters": {},
        **sent,
        "displayName": sent.get("displayName") or name,
        "resources": {"instanceCount": 1} | (sent.get("resources") or {}),
        "outputs": outputs,
        "status": "NotStarted",
        "services": {
            "Studio": {"jobServiceType": "Studio", "port": None, "endpoint": studio, "status": None, "properties": {}},
            "Tracking": {
                "jobServiceType": "Tracking",
                "port": None,
                "endpoint": runs.tracking_uri(),
                "status": None,
                "properties": {},
            },
        },
    }


def _changed(rehearsal: Rehearsal, name: str, there: Document, sent: dict[str, Any]) -> Document:
    before = there["properties"]
    if any(sent.get(key) and sent[key] != before.get(key) for key in FIXED):
        raise WireError(400, "UserError", f"A job with the name {name} already exists; choose another name.")

    def change(document: Document) -> None:
        for key in CHANGEABLE:
            if sent.get(key) is not None:
                document["properties"][key] = sent[key]

    return rehearsal.store.change(KIND, name, change) or there


_JOB = WORKSPACE_PATH + "/jobs/{name}"
ROUTES = [
    Route("PUT", MANAGEMENT_HOST, _JOB, put),
    Route("GET", MANAGEMENT_HOST, _JOB, get),
    Route("DELETE", MANAGEMENT_HOST, _JOB, delete),
    Route("POST", MANAGEMENT_HOST, _JOB + "/cancel", cancel),
    Route("GET", MANAGEMENT_HOST, WORKSPACE_PATH + "/jobs", list_all),
]
