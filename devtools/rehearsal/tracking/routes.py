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
from devtools.rehearsal.store import Document
from devtools.rehearsal.tracking import runs
from devtools.rehearsal.wire import Call, Route, WireError

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal

#: Fields that name runs, and those that name experiments, in what is sent and in what comes back.
FIELDS = ("run_id", "run_uuid", "run_ids", "source_run_id"), ("experiment_id", "experiment_ids")
#: Names of runs, and of experiments.
Names = tuple[dict[str, str], dict[str, str]]
MISSING = re.compile(r"^(mlflow/)?logged-models\b")
#: Azure's registry is the workspace's models; the one of the server behind this is another.
REGISTRY = re.compile(r"^(preview/)?mlflow/(registered-models|model-versions)\b")


def forward(call: Call) -> Response:
    """Ask the real server and answer what it answers, in Azure's words."""
    path = call.params["rest"]
    if MISSING.match(path):
        raise WireError(404, "NotFound", f"{path}: Azure's tracking server has no such call.")
    if REGISTRY.match(path):
        raise WireError(
            501, "NotEmulated", f"{path}: the rehearsal's models are registered with azure-ai-ml, not with MLflow"
        )
    rehearsal = call.rehearsal
    known = runs.inward(rehearsal)
    body = _renamed(call.body, known) if call.body is not None else None
    with httpx.Client(trust_env=False, timeout=runs.TIMEOUT) as client:
        answer = client.request(
            call.method,
            f"http://127.0.0.1:{rehearsal.tracking_port}/api/2.0/{path}",
            params=_renamed(dict(call.query), known),
            content=json.dumps(body) if body is not None else call.content,
            headers={"Content-Type": "application/json"},
        )
    try:
        said = answer.json()
    except ValueError:
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))
    content = json.dumps(_spoken(rehearsal, said)).encode()
    return Response(content, answer.status_code, media_type="application/json")


def log_later(call: Call) -> Document:
    """Params, metrics and tags that nobody waits for; here they are written at once, so there is nothing to ask for."""
    told = {key: value for key, value in (call.body or {}).items() if key in ("run_id", "params", "metrics", "tags")}
    run = runs.real(call.rehearsal, str(told.get("run_id") or ""))
    runs.ask(call.rehearsal, "POST", "/runs/log-batch", told | {"run_id": run})
    return {"batch_tracking_id": ""}


def is_logged(call: Call) -> Document:
    """Whether what was to be written later is."""
    return {"is_complete": True}


def _renamed(value: Any, names: Names) -> Any:
    """JSON with other names of runs and experiments: the real server's for Azure's, or the other way round."""
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    if not isinstance(value, dict):
        return value

    def name(key: str, one: Any) -> Any:
        for fields, known in zip(FIELDS, names, strict=True):
            if key in fields:
                return [known.get(each, each) for each in one] if isinstance(one, list) else known.get(one, one)
        return _renamed(one, names)

    return {key: name(key, one) for key, one in value.items()}


def _spoken(rehearsal: Rehearsal, said: Any) -> Any:
    """What comes back, with the jobs' names in place of the real server's ids, and artifacts where Azure keeps them."""

    def placed(value: Any) -> Any:
        if isinstance(value, list):
            return [placed(one) for one in value]
        if not isinstance(value, dict):
            return value
        answer = {key: placed(one) for key, one in value.items()}
        if "artifact_uri" in answer and "run_id" in answer:
            known = rehearsal.store.get(runs.KIND, answer["run_id"])
            experiment = known["experiment_name"] if known else answer.get("experiment_id", "Default")
            place = f"{workspace_id()}/experiments/{experiment}/runs/{answer['run_id']}/artifacts"
            answer["artifact_uri"] = f"azureml://{API_HOST}/mlflow/v2.0{place}"
        return answer

    return placed(_renamed(said, runs.outward(rehearsal)))


_API = "/mlflow/{version}" + WORKSPACE_PATH + "/api/2.0/"
ROUTES = [
    *(Route(method, API_HOST, _API + "{rest:path}", forward) for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
    Route("POST", API_HOST, _API + "preview/mlflow/runs/log-batch-async", log_later),
    Route("POST", API_HOST, _API + "mlflow/runs/log-batch-async", log_later),
    Route("GET", API_HOST, _API + "preview/mlflow/runs/get-run-data-status", is_logged),
    Route("GET", API_HOST, _API + "mlflow/runs/get-run-data-status", is_logged),
]
