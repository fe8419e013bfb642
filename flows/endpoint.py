"""The one client of the scoring server and of the managed endpoint, which differ by address and key alone.

    python -c "from flows.endpoint import Endpoint; print(Endpoint.configured().answer(
        [{'role': 'user', 'content': 'Who founded Microsoft?'}]))"

Settings are PHIKIT_ENDPOINT_URI (a scoring URI, as Azure names it), _KEY, _TIMEOUT, _RETRIES; of the untuned model
PHIKIT_BASE_ENDPOINT_URI and _KEY. Without an address it is the scoring server of this machine, on PHIKIT_SERVE_PORT
and with PHIKIT_SERVE_KEY. Answers are streamed from OpenAI's route beside the scoring route; where there is
none, the scoring route itself is asked, and the answer comes in one piece. Needs nothing else of this folder, so that
Prompt flow can take the file along by itself.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

import openai

Message = Mapping[str, str]
Kind = Literal["settings", "unreachable", "overloaded", "loading", "key", "contract", "broken", "slow", "refused"]

LOCAL = "http://127.0.0.1:{}/score"
#: The variables of each model's endpoint.
PREFIXES = {"tuned": "PHIKIT_ENDPOINT", "base": "PHIKIT_BASE_ENDPOINT"}
#: Seconds to connect; longest wait before one more try, and the first one, which doubles.
CONNECT, LONGEST_WAIT, FIRST_WAIT = 5.0, 20.0, 0.25
#: Names of this machine.
NEAR = frozenset({"127.0.0.1", "localhost", "::1"})
#: Characters of a server's own message that are passed on.
LONGEST_MESSAGE = 400
#: Shorter texts may stand in a server's message by chance; longer ones of ours are taken out.
SHORTEST_SECRET = 8
#: What may pass by itself: a full queue, a model that loads, a server that is being replaced.
PASSING = frozenset({"overloaded", "loading", "unreachable"})
#: What another try of the same question cannot help.
HOPELESS = frozenset({"refused", "settings"})
COMPOSED = frozenset({"scoring", "scoring-base"})  # (as compose.yaml names them)
#: How servers say that a conversation does not fit: this kit's, and those that speak OpenAI's contract.
TOO_LONG = re.compile(r"shorten the conversation|than the context|maximum context length|context_length", re.I)


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


@dataclass(frozen=True)
class Endpoint:
    """An address that answers by the scoring server's contract."""

    uri: str = LOCAL.format(5001)
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    """Seconds until the next piece of an answer."""
    retries: int = 4
    """Further tries while it is overloaded, loading or out of reach."""

    @classmethod
    def configured(cls, model: str = "tuned", environment: Mapping[str, str] = os.environ) -> Endpoint:
        """The endpoint of the tuned or the base model, as the environment has it.

        Raises:
            EndpointError: kind settings, with every variable that cannot be used.
        """
        if model not in PREFIXES:
            raise EndpointError("settings", f"model: is tuned or base, not {model[:40]!r}")
        prefix = PREFIXES[model]

        def told(name: str) -> str:
            return environment.get(name, "").strip()

        uri = told(f"{prefix}_URI")
        if model == "base" and not uri:
            raise EndpointError("settings", f"there is no base model to compare with: set {prefix}_URI")
        findings, numbers = [], {}
        if uri and (urlsplit(uri).scheme not in ("http", "https") or not urlsplit(uri).hostname):
            findings.append(f"{prefix}_URI: must be an address such as {cls.uri}")
        for name, kind, default in (("TIMEOUT", float, cls.timeout), ("RETRIES", int, cls.retries)):
            text = told(f"PHIKIT_ENDPOINT_{name}")
            try:
                numbers[name.lower()] = kind(text) if text else default
                if not 0 <= numbers[name.lower()] < 1e6 or (name == "TIMEOUT" and not numbers["timeout"]):
                    raise ValueError
            except ValueError:
                findings.append(f"PHIKIT_ENDPOINT_{name}: {text} must be a number, as {default}")
        port = told("PHIKIT_SERVE_PORT") or "5001"
        if not uri and not port.isdigit():
            findings.append(f"PHIKIT_SERVE_PORT: {port} must be a number")
        if findings:
            raise EndpointError("settings", "; ".join(findings))
        key = told(f"{prefix}_KEY")
        if uri:
            return cls(uri, key, **numbers)
        # the server here takes any of its keys
        mine = told("PHIKIT_SERVE_KEY").partition(",")[0].strip()
        return cls(LOCAL.format(port), key or mine, **numbers)

    def answer(self, messages: Sequence[Message], temperature: float = 0.0, max_tokens: int = 128) -> str:
        """The whole answer to a conversation; raises EndpointError."""
        return "".join(self.stream(messages, temperature, max_tokens))

    def stream(self, messages: Sequence[Message], temperature: float = 0.0, max_tokens: int = 128) -> Iterator[str]:
        """The answer's pieces as they come.

        Args:
            messages: role and content each, the last one the user's.

        Raises:
            EndpointError: after all tries where none gave a first piece; at once when the answer breaks off later.
        """
        tries = 0
        while True:
            begun = False
            try:
                for piece in self._pieces(messages, temperature, max_tokens):
                    begun = True
                    yield piece
                return
            except EndpointError as error:
                error = error.without(self.key, *(message["content"] for message in messages))
                if begun or error.kind not in PASSING or tries >= self.retries:
                    raise error from None
                tries += 1
                # (not all at once again: each waits a little differently)
                wait = min(FIRST_WAIT * 2**tries, LONGEST_WAIT) * random.uniform(0.5, 1)
                time.sleep(min(max(wait, error.wait or 0.0), LONGEST_WAIT))

    @property
    def origin(self) -> str:
        """Scheme, host and port, which may be shown."""
        parts = urlsplit(self.uri)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")

    @cached_property
    def client(self) -> openai.OpenAI:
        base = urlsplit(self.uri)._replace(query="", fragment="").geturl().rsplit("/", 1)[0]
        # (tries are counted here: the package would repeat a request that took too long, too)
        return openai.OpenAI(
            base_url=f"{base}/v1",
            api_key=self.key or "none",
            timeout=openai.Timeout(self.timeout, connect=CONNECT),
            max_retries=0,
            # no proxy stands before this machine itself
            http_client=openai.DefaultHttpxClient(trust_env=urlsplit(self.uri).hostname not in NEAR),
        )

    @cached_property
    def name(self) -> str | None:
        """The name that OpenAI's route has for the model; None where there is no such route."""
        with self.faults():
            try:
                return self.client.models.list().data[0].id
            except openai.NotFoundError:
                return None
            except (IndexError, TypeError, AttributeError, ValueError):
                raise EndpointError("contract", f"{self.origin} lists no model; is it a scoring server?") from None

    def about(self) -> dict[str, Any]:
        """What the server says of its model (run, base model) and its context; nothing where there is no such route."""
        with self.faults():
            try:
                base = str(self.client.base_url).rstrip("/").removesuffix("/v1")
                told = self.client.get(f"{base}/version", cast_to=object)
            except openai.NotFoundError:
                told = None
            parts = (told.get(key) if isinstance(told, dict) else None for key in ("model", "limits"))
            model, limits = (part if isinstance(part, dict) else {} for part in parts)
            return {**model, "context": limits.get("context")}

    def _pieces(self, messages: Sequence[Message], temperature: float, max_tokens: int) -> Iterator[str]:
        name = self.name
        with self.faults():
            if name is None:
                yield self._scored(messages, temperature, max_tokens)
                return
            finished = False
            try:
                stream = self.client.chat.completions.create(
                    model=name,
                    messages=list(messages),  # type: ignore[arg-type]
                    temperature=temperature,
                    max_tokens=max_tokens,
                    stream=True,
                )
            except openai.NotFoundError:
                # its model goes by another name since: the next question looks again
                self.__dict__.pop("name", None)
                raise
            with stream:
                if not stream.response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise EndpointError("contract", f"{self.origin} answered, but streams nothing; check its URI")
                try:
                    for chunk in stream:
                        for choice in chunk.choices or ():
                            finished = finished or choice.finish_reason is not None
                            if choice.delta.content:
                                yield choice.delta.content
                except openai.APITimeoutError:
                    raise
                except openai.APIConnectionError:
                    # it was reached, and hung up
                    finished = False
            if not finished:
                raise EndpointError("broken", f"{self.origin} broke the answer off; try again")

    def _scored(self, messages: Sequence[Message], temperature: float, max_tokens: int) -> str:
        """The answer by the scoring route, whole."""
        params: dict[str, Any] = {"max_new_tokens": max_tokens, "temperature": temperature}
        body = {"input_data": list(messages), "params": params}
        answer = self.client.post(self.uri, cast_to=object, body=body)
        if not isinstance(answer, list) or not answer or not isinstance(answer[0], str):
            raise EndpointError("contract", f"{self.origin} answered, but not as a scoring server does; check its URI")
        return answer[0]

    def faults(self) -> _Faults:
        """A block in which what the package raises becomes an EndpointError."""
        return _Faults(self)


class _Faults:
    """Turns what the package raises into an EndpointError."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        where = self._endpoint.origin
        match error:
            case openai.APITimeoutError():
                raise EndpointError("slow", f"{where} took longer than {self._endpoint.timeout:g} s") from None
            case openai.APIConnectionError():
                if type(error.__cause__).__name__ != "ConnectError":
                    # it took the request and hung up: no reason to ask for the same work again
                    raise EndpointError("broken", f"{where} hung up without an answer; try again") from None
                mine = urlsplit(where).hostname in COMPOSED
                hint = "`make logs` says why, `make up` starts it" if mine else "is the server started?"
                raise EndpointError("unreachable", f"{where} cannot be reached; {hint}") from None
            case openai.APIStatusError():
                raise _refused(where, error) from None
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


def _refused(where: str, error: openai.APIStatusError) -> EndpointError:
    status = error.status_code
    said = error.body.get("message") if isinstance(error.body, dict) else None
    said = " ".join(str(said).split())[:LONGEST_MESSAGE] if said else ""
    wait = error.response.headers.get("retry-after", "")
    seconds = float(wait) if wait.replace(".", "", 1).isdigit() else None
    if status in (401, 403):
        return EndpointError("key", f"{where} refuses the key; check PHIKIT_ENDPOINT_KEY")
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
