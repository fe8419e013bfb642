"""The endpoints' hosts: every method and path below https://ENDPOINT.eastus2.inference.ml.azure.com/."""

from __future__ import annotations

from starlette.responses import PlainTextResponse, Response

from devtools.rehearsal import SCORING_SUFFIX
from devtools.rehearsal.endpoints import keys
from devtools.rehearsal.endpoints.fleet import fleet_of
from devtools.rehearsal.scoring.forwarding import Forwarded
from devtools.rehearsal.wire import Call, Route, WireError

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def score(call: Call) -> Response:
    """Let a request in by its key and send it on."""
    name = call.host.partition(".")[0]
    endpoint = call.rehearsal.store.get("endpoints", name)
    if endpoint is None:
        # (on Azure there is no such host; here every name leads to the same place)
        return PlainTextResponse(f"{call.host}: there is no endpoint {name}", 404)
    try:
        keys.check(call.rehearsal, endpoint, call.headers.get("authorization"))
    except WireError as error:
        fleet_of(call.rehearsal).counters.note(name, "", status=error.status, model_status=None, seconds=0.0)
        return PlainTextResponse(error.message, error.status)
    return Forwarded(call, endpoint)


ROUTES = [Route(method, f"*.{SCORING_SUFFIX}", "/{rest:path}", score, asks_token=False) for method in METHODS]
