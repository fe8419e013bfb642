"""Refusals of the inferencing service, which endpoints are handed on to: an error of the control plane around its own.

    raise wording.invalid("", "There is already an endpoint with this name ...")
    raise wording.failed("ResourceNotReady", "User container has crashed or terminated.")

The first is the answer to a call, the second the end of an operation.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime

from devtools.rehearsal.wire import WireError

#: Where the service's own troubleshooting guide has an error's page.
GUIDE = "https://aka.ms/oe-tsg"
#: What the inferencing service calls a call that it would not take.
CALL = "InferencingClientCallFailed"
DEPLOYMENT = "InferencingClientCreateDeploymentFailed"


def invalid(field: str, problem: str, *, code: str = CALL) -> WireError:
    """400: the inferencing service finds something wrong with what was sent.

    Args:
        field: which field, as the service names it; empty for the whole.
        code: `CALL`, or `DEPLOYMENT` where a deployment was to be made.
    """
    inner = {
        "errors": {field: [problem]},
        "type": "https://tools.ietf.org/html/rfc7231#section-6.5.1",
        "title": "One or more validation errors occurred.",
        "status": 400,
        "traceId": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
    }
    said = json.dumps(inner)
    message = f"InferencingClient HttpRequest error, error detail: {said}" if code == DEPLOYMENT else said
    detail = {"code": code, "message": message, "details": [], "additionalInfo": []}
    return WireError(400, "BadRequest", "The request is invalid.", details=[detail])


def user_error(message: str, status: int = 400) -> WireError:
    """The control plane itself finds something wrong with what was sent."""
    return WireError(status, "UserError", message)


def conflict(message: str) -> WireError:
    """409: something else is being done with it."""
    return WireError(409, "Conflict", message)


def failed(code: str, message: str, page: str = "") -> WireError:
    """Why an operation on a deployment failed, with the page of the guide that is about it."""
    page = page or f"error-{code.lower()}"
    return WireError(400, code, f"{message} Please see troubleshooting guide, available here: {GUIDE}#{page}")


def moment() -> str:
    """The time as container events carry it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
