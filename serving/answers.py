"""Errors as the routes answer them: OpenAI's shape everywhere, MLflow's where MLflow answers.

    {"error": {"message": "max_tokens: …", "type": "invalid_request_error", "param": "max_tokens", "code": null}}
    {"error_code": "INVALID_PARAMETER_VALUE", "message": "params.max_new_tokens: …"}

A message names the field and what would be right; it never repeats what the client wrote, nor a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.responses import JSONResponse

from serving.errors import Refused

#: OpenAI's error types, which its client libraries tell apart.
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 503: "server_error"}
CODES = {401: "invalid_api_key", 413: "body_too_large", 429: "queue_full", 503: "not_ready"}
#: MLflow's error codes, by the status that it answers them with.
MLFLOW_CODES = {400: "INVALID_PARAMETER_VALUE", 401: "UNAUTHENTICATED", 429: "REQUEST_LIMIT_EXCEEDED"}
#: Findings of one request that are told at once.
MOST_FINDINGS = 5
#: Characters of a field's path that are repeated: an unknown field is called what the client called it.
LONGEST_PATH = 80

#: pydantic's findings in words that need no Python.
WORDS = {
    "json_invalid": "is not JSON",
    "extra_forbidden": "there is no such field",
    "missing": "is missing",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}

MLFLOW_ROUTE = "/invocations"
#: Nobody's fault but ours: the traceback goes to the log, since a message could hold what the client wrote.
FAILED = Refused(500, "the server failed on this request; its log says where")


def refusal(path: str, refused: Refused) -> JSONResponse:
    """The answer to a refused request."""
    headers = {}
    if refused.retry_after is not None:
        headers["Retry-After"] = str(refused.retry_after)
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error(path, refused), refused.status, headers)


def error(path: str, refused: Refused) -> dict[str, Any]:
    """The body of that answer."""
    if path == MLFLOW_ROUTE:
        return {"error_code": MLFLOW_CODES.get(refused.status, "BAD_REQUEST"), "message": refused.message}
    return {
        "error": {
            "message": refused.message,
            "type": TYPES.get(refused.status, "invalid_request_error"),
            "param": refused.field,
            "code": CODES.get(refused.status),
        }
    }


def findings(errors: Sequence[Any]) -> Refused:
    """What is wrong with a body, of pydantic's findings: where, and what would be right."""
    told: dict[str, str] = {}
    for found in errors:
        field, message = _field(found["loc"]), found["msg"].removeprefix("Value error, ")
        message = WORDS.get(found["type"], message[:1].lower() + message[1:])
        if not field and found["type"] == "value_error" and ": " in message:
            # what a body's fields have to do with each other is told by the body, which names one of them
            field, message = message.split(": ", 1)
        told.setdefault(field, message)
    lines = [f"{field or 'the body'}: {message}" for field, message in told.items()]
    more = f"; and {len(lines) - MOST_FINDINGS} more" if len(lines) > MOST_FINDINGS else ""
    return Refused(400, "; ".join(lines[:MOST_FINDINGS]) + more, next(iter(told), None) or None)


def _field(place: Sequence[str | int]) -> str:
    # FastAPI says where the value came from, pydantic which kind of value it took it for (serving/bodies.py)
    parts = [str(part) for part in place[1:] if not str(part).startswith("<")]
    # (what a client called an unknown field may be no Unicode)
    return ".".join(parts)[:LONGEST_PATH].encode(errors="replace").decode()
