"""MLflow's REST calls, handed on to the real server: run ids, experiment and artifact addresses in Azure's words.

What Azure's server does not have is not here either: logged models answer 404, so MLflow 3's log_model fails here as it
does there.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import httpx
from starlette.responses import Response

from devtools.rehearsal import API_HOST, WORKSPACE_PATH, workspace_id
from devtools.rehearsal.tracking import runs
from devtools.rehearsal.wire import Call, Route, WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: Fields that name a run, in what is sent and in what comes back.
RUN_FIELDS = ("run_id", "run_uuid")
MISSING = re.compile(r"^(mlflow/)?logged-models\b")


def forward(call: Call) -> Response:
    """Ask the real server and answer what it answers, in Azure's words."""
    path = call.params["rest"]
    if MISSING.match(path):
        raise WireError(404, "NotFound", f"{path}: Azure's tracking server has no such call.")
    rehearsal = call.rehearsal
    known = {name: body["run"] for name, body in rehearsal.store.all(runs.KIND)}
    query = {key: known.get(value, value) if key in RUN_FIELDS else value for key, value in call.query.items()}
    body = _named(call.body, known) if call.body is not None else None
    with httpx.Client(trust_env=False, timeout=runs.TIMEOUT) as client:
        answer = client.request(
            call.method,
            f"http://127.0.0.1:{rehearsal.tracking_port}/api/2.0/{path}",
            params=query,
            content=json.dumps(body) if body is not None else call.content,
            headers={"Content-Type": "application/json"},
        )
    try:
        said = answer.json()
    except ValueError:
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))
    content = json.dumps(_spoken(rehearsal, said)).encode()
    return Response(content, answer.status_code, media_type="application/json")


def _named(sent: Any, known: dict[str, str]) -> Any:
    """What is sent, with the real server's ids in place of the jobs' names."""
    if isinstance(sent, dict):
        return {
            key: known.get(value, value) if key in RUN_FIELDS and isinstance(value, str) else _named(value, known)
            for key, value in sent.items()
        }
    return [_named(one, known) for one in sent] if isinstance(sent, list) else sent


def _spoken(rehearsal: Rehearsal, said: Any) -> Any:
    """What comes back, with the jobs' names in place of the real server's ids, and artifacts where Azure keeps them."""
    names = runs.names(rehearsal)

    def spoken(value: Any) -> Any:
        if isinstance(value, list):
            return [spoken(one) for one in value]
        if not isinstance(value, dict):
            return value
        answer = {
            key: names.get(one, one) if key in RUN_FIELDS and isinstance(one, str) else spoken(one)
            for key, one in value.items()
        }
        if "artifact_uri" in answer and "run_id" in answer:
            known = rehearsal.store.get(runs.KIND, answer["run_id"])
            experiment = known["experiment_name"] if known else answer.get("experiment_id", "Default")
            place = f"{workspace_id()}/experiments/{experiment}/runs/{answer['run_id']}/artifacts"
            answer["artifact_uri"] = f"azureml://{API_HOST}/mlflow/v2.0{place}"
        return answer

    return spoken(said)


ROUTES = [
    Route(method, API_HOST, f"/mlflow/{version}{WORKSPACE_PATH}/api/2.0/{{rest:path}}", forward)
    for version in ("v1.0", "v2.0")
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
]
