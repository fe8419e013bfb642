"""What can go wrong between a question and its answer, as one sentence for people.

    with endpoint.faults():
        endpoint.client.models.list()

Whatever the openai package raises in the block leaves it as an EndpointError, without key or prompt.
"""

from __future__ import annotations

import re
from typing import Literal, Protocol
from urllib.parse import urlsplit

import openai

Kind = Literal["settings", "unreachable", "overloaded", "loading", "key", "contract", "broken", "slow", "refused"]

#: Characters of a server's own message that are passed on.
LONGEST_MESSAGE = 400
#: Shorter texts may stand in a server's message by chance; longer ones of ours are taken out.
SHORTEST_SECRET = 8
#: What another try of the same question cannot help.
HOPELESS = frozenset({"refused", "settings"})
#: Header of a managed endpoint with the status that its server answered (learn.microsoft.com: "HTTP status codes for
#: online endpoints").
BEHIND = "ms-azureml-model-error-statuscode"
COMPOSED = frozenset({"scoring", "scoring-base"})  # (as compose.yaml names them)
#: How servers say that a conversation does not fit: this kit's, and those that speak OpenAI's contract.
TOO_LONG = re.compile(r"shorten the conversation|than the context|maximum context length|context_length", re.I)


class Asked(Protocol):
    """What a sentence about an endpoint needs to know of it (endpoint.py)."""

    timeout: float
    key_variable: str

    @property
    def origin(self) -> str: ...


class EndpointError(Exception):
    """No answer, or not the whole of it: one sentence for people, without key or prompt."""

    def __init__(self, kind: Kind, text: str, wait: float | None = None) -> None:
        self.kind: Kind = kind
        self.wait = wait
        """Seconds after which the server wants to be asked again, where it said so."""
        super().__init__(text)

    @property
    def passes(self) -> bool:
        """Whether another try of the same question may help."""
        return self.kind not in HOPELESS

    def without(self, *secrets: str) -> EndpointError:
        """The same without these texts, which a server may have repeated."""
        text = str(self)
        for secret in secrets:
            text = text.replace(secret, "…") if len(secret) >= SHORTEST_SECRET else text
        return EndpointError(self.kind, text, self.wait)


class Faults:
    """Turns what the package raises into an EndpointError."""

    def __init__(self, endpoint: Asked) -> None:
        self._endpoint = endpoint

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        where = self._endpoint.origin
        match error:
            case openai.APITimeoutError() if type(error.__cause__).__name__ != "ConnectTimeout":
                raise EndpointError("slow", f"{where} took longer than {self._endpoint.timeout:g} s") from None
            case openai.APIConnectionError():
                if type(error.__cause__).__name__ not in ("ConnectError", "ConnectTimeout"):
                    # it took the request and hung up: no reason to ask for the same work again
                    raise EndpointError("broken", f"{where} hung up without an answer; try again") from None
                mine = urlsplit(where).hostname in COMPOSED
                hint = "`make logs` says why, `make up` starts it" if mine else "is the server started?"
                raise EndpointError("unreachable", f"{where} cannot be reached; {hint}") from None
            case openai.APIStatusError():
                raise _refused(self._endpoint, error) from None
            case openai.APIError() if "deadline" in error.message:
                raise EndpointError("slow", f"{where}: {error.message[:LONGEST_MESSAGE]}") from None
            case openai.APIError() | ConnectionError():
                raise EndpointError("broken", f"{where} broke the answer off; try again") from None
            case None | EndpointError() | GeneratorExit():
                return
            case Exception():
                name = type(error).__module__.partition(".")[0]
                if name in ("httpx", "httpcore", "json", "pydantic"):
                    raise EndpointError("broken", f"{where} broke the answer off; try again") from None


def _refused(endpoint: Asked, error: openai.APIStatusError) -> EndpointError:
    where, status = endpoint.origin, error.status_code
    if status == 424:
        # a managed endpoint's front door: what the server behind it answered stands in a header
        behind = error.response.headers.get(BEHIND, "")
        status = int(behind) if behind.isdigit() else 503
    said = error.body.get("message") if isinstance(error.body, dict) else None
    said = " ".join(str(said).split())[:LONGEST_MESSAGE] if said else ""
    wait = error.response.headers.get("retry-after", "")
    seconds = float(wait) if wait.replace(".", "", 1).isdigit() else None
    if status in (401, 403):
        return EndpointError("key", f"{where} refuses the key; check {endpoint.key_variable}")
    if status == 429:
        return EndpointError("overloaded", f"{where} is overloaded; try again in a moment", seconds)
    if status == 503:
        return EndpointError("loading", f"{where} has no model ready yet; try again in a moment", seconds)
    if status == 408:
        return EndpointError("slow", f"{where}: {said or 'the answer took too long'}")
    if 400 <= status < 500 and TOO_LONG.search(said):
        return EndpointError(
            "refused", "this conversation is too long for the model; begin a new one, or cut the answer"
        )
    if said and 400 <= status < 500:
        return EndpointError("refused", f"{where} refuses the request: {said}")
    return EndpointError("contract", f"{where} answers with status {status}, and no reason; check its URI")
