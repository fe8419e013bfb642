"""How a resource type answers: what it gets (Call), gives (Answer), refuses with (WireError), and its routes.

    def get(call: Call) -> Document: ...
    ROUTES = [Route("GET", MANAGEMENT_HOST, WORKSPACE_PATH + "/computes/{name}", get)]

devtools/rehearsal/gateway.py serves them; every refusal has Azure Resource Manager's shape of an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

if TYPE_CHECKING:
    from devtools.rehearsal.server import Rehearsal


@dataclass(frozen=True)
class Call:
    """One request, read whole."""

    rehearsal: Rehearsal
    """Everything that the emulator has: store, operations, refusals, ports, programs."""
    method: str
    host: str
    path: str
    """With its leading slash, without the query."""
    params: Mapping[str, str]
    """Parts of the path that the route's pattern names."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By their names in lower case."""
    content: bytes
    body: Any
    """The content as JSON; None when there is none, or it is something else."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What the caller's token says; empty where a route asks for none."""


@dataclass(frozen=True)
class Answer:
    """An answer that is more than `200` and a document."""

    status: int = 200
    body: Any = None
    """JSON; None: an answer without content."""
    headers: Mapping[str, str] = field(default_factory=dict)


class WireError(Exception):
    """A refusal of the service: status, code and message as Azure words them."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.details = details or []

    def answer(self) -> Answer:
        """The error as Azure Resource Manager writes it."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            error["details"] = self.details
        return Answer(self.status, {"error": error}, self.headers)


class Late(Response):
    """A response whose status is known only once it is sent; then it calls `noted`, which the gateway sets."""

    noted: Callable[[], None] | None = None


#: What answers a call: a JSON document (200), an Answer, or a response of Starlette's (streams, other content).
Handler = Callable[[Call], "dict[str, Any] | list | Answer | Response"]


@dataclass(frozen=True)
class Route:
    """One call that a resource type answers. Patterns name parts of the path: `{name}`, and `{rest:path}` for many."""

    method: str
    host: str
    """A host's name; `*.` before it stands for any one name there."""
    path: str
    handler: Handler
    asks_token: bool = True
    """Whether a bearer token of this tenant is asked for before the handler is called."""


def missing(what: str, name: str) -> WireError:
    """404 as the machine learning service words it."""
    return WireError(404, "ResourceNotFound", f"{what} {name} not found.")


def page(values: list[Any]) -> dict[str, Any]:
    """A list as the control plane answers it: all on one page."""
    return {"value": values}
