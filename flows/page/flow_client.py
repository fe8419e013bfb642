"""The client of the chat flow: a question in, the answer's pieces out as they come, what goes wrong in words.

    async with Flow("http://127.0.0.1:8080/score") as flow:
        async for piece in flow.ask(Question("Who founded Microsoft?")):
            print(piece, end="")

The flow streams server-sent events whose data is {"answer": "<piece>"}. It retries by itself, so nothing is retried
here.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import httpx

#: Seconds to reach the flow; and until the next piece of an answer (the flow gives its own endpoint 120).
CONNECT, NEXT_PIECE = 5, 180
#: Seconds that the page's card waits for what the scoring server says of its model.
ABOUT = 3
#: Characters of an error that are shown.
LONGEST = 600
#: The flow as the kit's compose.yaml names it.
COMPOSED = frozenset({"flow", "flow-azure"})
#: How the flow ends what another try may help (flows/chat/ask.py); what it refuses for good is a 400, too.
PASSES = "try again"
#: How promptflow introduces what a node of the flow said.
WRAPPING = re.compile(
    r"^(?:Execution failure in '[^']*'|The execution of node '[^']*' failed)[^:]*: (?:\(\w+\) )?", re.S
)


class FlowError(Exception):
    """No answer, or not all of it; the text is for people, `passes` whether another try may help."""

    def __init__(self, text: str, passes: bool = True) -> None:
        self.passes = passes
        super().__init__(text)


@dataclass(frozen=True)
class Question:
    """The flow's inputs, by its own names."""

    input_data: str
    chat_history: list[dict[str, Any]] = field(default_factory=list)
    system: str = ""
    model: str = "tuned"
    temperature: float = 0.0
    max_tokens: int = 128


class Flow:
    """A flow that listens at `uri`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        # the flow is near: no proxy of the environment stands between
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(NEXT_PIECE, connect=CONNECT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def ask(self, question: Question) -> AsyncIterator[str]:
        """The answer's pieces, as they come; whoever stops reading ends the flow's work.

        Raises:
            FlowError: the flow is out of reach, refuses, or breaks off.
        """
        try:
            async with self._client.stream(
                "POST", self.uri, json=asdict(question), headers={"Accept": "text/event-stream"}
            ) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise _refusal(response)
                if "text/event-stream" not in response.headers.get("Content-Type", ""):
                    await response.aread()
                    yield _whole(response)
                    return
                async for line in response.aiter_lines():
                    if line.startswith("data:") and (piece := _piece(line[5:])):
                        yield piece
        except (httpx.ConnectError, httpx.ConnectTimeout):
            start = "make up; make logs says why it ended" if self.composed else "make flow-serve"
            raise FlowError(
                f"The chat flow does not answer at {_origin(self.uri)}. Start it ({start}), then try again."
            ) from None
        except httpx.TimeoutException:
            raise FlowError("The model takes too long. Try again, or ask for a shorter answer.") from None
        except httpx.HTTPError:
            raise FlowError("The answer broke off: the chat flow or the model ended. Try again.") from None

    @property
    def composed(self) -> bool:
        """Whether the flow is the one of the kit's compose.yaml."""
        return urlsplit(self.uri).hostname in COMPOSED

    async def about(self) -> dict[str, Any]:
        """What the scoring server says of its model, as text; empty where that cannot be known now."""
        asked = {"input_data": "", "about": True}
        try:
            response = await self._client.post(self.uri, json=asked, timeout=ABOUT)
            told = json.loads(response.json()["answer"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return {}
        return told if isinstance(told, dict) else {}

    async def state(self) -> str:
        """Why the flow cannot be asked now; empty when it can."""
        try:
            response = await self._client.get(urljoin(self.uri, "health"), timeout=2)
        except httpx.HTTPError:
            return f"the chat flow does not answer at {_origin(self.uri)}"
        return "" if response.is_success else f"the chat flow is not well: status {response.status_code}"


def _piece(data: str) -> str:
    try:
        event = json.loads(data)
    except ValueError:
        raise FlowError("The chat flow sent what is no answer; is PHIKIT_FLOW_URI the flow's /score?") from None
    piece = event.get("answer", "") if isinstance(event, dict) else ""
    # promptflow ends a stream that breaks off like a whole one: the flow says so in a last piece
    for told in (event, piece):
        if isinstance(told, dict) and "error" in told:
            said = _message(told)
            raise FlowError(said, PASSES in said)
    return str(piece)


def _whole(response: httpx.Response) -> str:
    """The answer of a flow that does not stream."""
    try:
        answer = response.json()["answer"]
    except (ValueError, KeyError, TypeError):
        raise FlowError("The chat flow sent what is no answer; is PHIKIT_FLOW_URI the flow's /score?") from None
    return str(answer)


def _refusal(response: httpx.Response) -> FlowError:
    try:
        said = _message(response.json())
    except ValueError:
        said = ""
    if not said:
        return FlowError(f"The chat flow refused with status {response.status_code} and gave no reason. Try again.")
    return FlowError(said, response.is_server_error or PASSES in said)


def _message(body: Any) -> str:
    """The sentence in an error's JSON, without promptflow's words around it."""
    error = body.get("error") if isinstance(body, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    return WRAPPING.sub("", said.strip())[:LONGEST] if isinstance(said, str) else ""


def _origin(uri: str) -> str:
    """Scheme, host and port: what else is in an address may be a secret."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
