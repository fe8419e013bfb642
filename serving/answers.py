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

MLFLOW_ROUTE = "/invocations"


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
        field = _field(found["loc"])
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "json_invalid":
            field, message = "", "the body is not JSON"
        elif found["type"] == "extra_forbidden":
            message = "there is no such field"
        elif found["type"] == "missing":
            message = "is missing"
        told.setdefault(field, message[:1].lower() + message[1:])
    lines = [f"{field}: {message}" if field else message for field, message in told.items()]
    more = f"; and {len(lines) - MOST_FINDINGS} more" if len(lines) > MOST_FINDINGS else ""
    first = next(iter(told), None)
    return Refused(400, "; ".join(lines[:MOST_FINDINGS]) + more, first or None)


def _field(place: Sequence[str | int]) -> str:
    # pydantic names the branch of a union in between, FastAPI where the value came from
    parts = [str(part) for part in place if part != "body" and not str(part).startswith(("list[", "function-"))]
    return ".".join(part for part in parts if not part[:1].isupper() and part != "str")[:LONGEST_PATH]
