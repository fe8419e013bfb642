"""The one client of the scoring server and of the managed endpoint, which differ by address and key alone.

    python -c "from flows.endpoint import Endpoint; print(Endpoint.configured().answer(
        [{'role': 'user', 'content': 'Who founded Microsoft?'}]))"

Settings are PHIKIT_ENDPOINT_URI (a scoring URI, as Azure names it), _KEY, _TIMEOUT, _RETRIES; of the untuned model
PHIKIT_BASE_ENDPOINT_URI and _KEY. Without an address it is the scoring server of this machine, on PHIKIT_SERVE_PORT;
the kit's own servers get PHIKIT_SERVE_KEY where no other key is told. Answers are streamed from OpenAI's route beside
the scoring route; where there is none, the scoring route itself is asked, and the answer comes in one piece. Needs
endpoint_errors.py and nothing else of this folder: Prompt flow takes the two along by themselves.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import openai

try:
    from flows.endpoint_errors import COMPOSED, EndpointError, Faults
except ImportError:  # in Prompt flow's own copy
    from endpoint_errors import COMPOSED, EndpointError, Faults

Message = Mapping[str, str]

LOCAL = "http://127.0.0.1:{}/score"
#: The variables of each model's endpoint.
PREFIXES = {"tuned": "PHIKIT_ENDPOINT", "base": "PHIKIT_BASE_ENDPOINT"}
#: Keys of the scoring servers that run on this machine, comma-separated; any of them will do.
OWN_KEYS = "PHIKIT_SERVE_KEY"
#: Seconds to connect; longest wait before one more try, and the first one, which doubles.
CONNECT, LONGEST_WAIT, FIRST_WAIT = 5.0, 20.0, 0.25
#: Names of this machine.
NEAR = frozenset({"127.0.0.1", "localhost", "::1"})
#: What may pass by itself: a full queue, a model that loads, a server that is being replaced.
PASSING = frozenset({"overloaded", "loading", "unreachable"})


@dataclass(frozen=True)
class Endpoint:
    """An address that answers by the scoring server's contract."""

    uri: str = LOCAL.format(5001)
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    """Seconds until the next piece of an answer."""
    retries: int = 4
    """Further tries while it is overloaded, loading or out of reach."""
    key_variable: str = "PHIKIT_ENDPOINT_KEY"
    """Where the key is told, for who is refused."""

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
        if uri and not is_address(uri):
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
        uri = uri or LOCAL.format(port)
        variable = f"{prefix}_KEY"
        if not told(variable) and urlsplit(uri).hostname in NEAR | COMPOSED:
            variable = OWN_KEYS
        key = told(variable).partition(",")[0].strip() if variable == OWN_KEYS else told(variable)
        return cls(uri, key, **numbers, key_variable=variable if key else f"{prefix}_KEY")

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
                tries += 1
                wait = None if begun else self.wait(error, tries)
                if wait is None:
                    raise error.without(self.key, *(message["content"] for message in messages)) from None
                time.sleep(wait)

    def wait(self, error: EndpointError, tries: int) -> float | None:
        """Seconds until one more try after so many that failed; None when there is none, for it would not help."""
        if error.kind not in PASSING or tries > self.retries:
            return None
        # (not all at once again: each waits a little differently)
        wait = min(FIRST_WAIT * 2**tries, LONGEST_WAIT) * random.uniform(0.5, 1)
        return min(max(wait, error.wait or 0.0), LONGEST_WAIT)

    @property
    def origin(self) -> str:
        """Scheme, host and port, which may be shown."""
        parts = urlsplit(self.uri)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")

    @cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(**self._options(), http_client=openai.DefaultHttpxClient(trust_env=self._far))

    def async_client(self) -> openai.AsyncOpenAI:
        """A client for whoever waits for many at once; the caller closes it."""
        return openai.AsyncOpenAI(**self._options(), http_client=openai.DefaultAsyncHttpxClient(trust_env=self._far))

    @property
    def _far(self) -> bool:
        # no proxy stands before this machine itself
        return urlsplit(self.uri).hostname not in NEAR

    def _options(self) -> dict[str, Any]:
        base = urlsplit(self.uri)._replace(query="", fragment="").geturl().rsplit("/", 1)[0]
        # (tries are counted here: the package would repeat a request that took too long, too)
        timeout = openai.Timeout(self.timeout, connect=CONNECT)
        return {"base_url": f"{base}/v1", "api_key": self.key or "none", "timeout": timeout, "max_retries": 0}

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

    def faults(self) -> Faults:
        """A block in which what the package raises becomes an EndpointError."""
        return Faults(self)


def is_address(uri: str) -> bool:
    """Whether it is an http address, with a port that is one if it has any."""
    try:
        parts = urlsplit(uri)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
