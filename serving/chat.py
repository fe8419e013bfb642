"""Conversations to token ids and token ids to text, with the tokenizer and the chat template that training saved.

    python -c "from pathlib import Path; from serving.chat import Chat; from serving.model_folder import read; \
        print(Chat(read(Path('runs/latest/model'))).prompt([{'role': 'user', 'content': 'Who founded Microsoft?'}]))"

The tokenizer is the saved tokenizer.json and the template the saved Jinja text, both read without transformers: an
endpoint that serves an ONNX export needs neither it nor torch, and is ready sooner. A test holds that both give what
transformers' own `apply_chat_template` and `batch_decode` give.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from serving.errors import BadInput, Refused
from serving.model_folder import ModelFolder

#: What a decoder puts where bytes do not make a whole character yet.
INCOMPLETE = "\ufffd"


class Chat:
    """The tokenizer and chat template of a model directory."""

    def __init__(self, model: ModelFolder) -> None:
        """Read tokenizer.json, tokenizer_config.json and chat_template.jinja.

        Raises:
            BadInput: one of them is missing or cannot be used.
        """
        self._tokenizer = _tokenizer(model.weights / "tokenizer.json")
        config = _json(model.weights / "tokenizer_config.json")
        names = {name: _text(value) for name, value in config.items() if name.endswith("_token") and value}
        self._template = _template(model.weights, config).render
        self._names = names
        self._ends = model.ends

    def prompt(self, messages: Sequence[Mapping[str, str]], field: str = "messages") -> list[int]:
        """The token ids of a conversation that waits for its answer.

        Args:
            field: what the request calls the conversation.

        Raises:
            Refused: the template does not take this conversation.
        """
        try:
            text = self._template(messages=list(messages), add_generation_prompt=True, **self._names)
        except Exception as error:
            # a template may fail as any program; only its own raise_exception has words for people
            reason = error.message if type(error) is jinja2.TemplateError else "it fails on this order of roles"
            raise Refused(400, f"{field}: the model's chat template refuses it: {reason}", field) from error
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not ids:
            raise Refused(400, f"{field}: there is no text in it", field)
        return ids

    def question(self, messages: Sequence[Mapping[str, str]]) -> tuple[list[int], list[int]]:
        """A conversation that ends with an answer: the prompt's token ids, and the answer's with its first end token.

        Raises:
            Refused: the template does not take this conversation.
        """
        prompt = self.prompt(messages[:-1])
        text = self._template(messages=list(messages), add_generation_prompt=False, **self._names)
        whole = self._tokenizer.encode(text, add_special_tokens=False).ids
        if whole[: len(prompt)] != prompt:
            return prompt, self._tokenizer.encode(messages[-1]["content"], add_special_tokens=False).ids
        answer = whole[len(prompt) :]
        end = next((place for place, token in enumerate(answer) if token in self._ends), len(answer))
        return prompt, answer[: end + 1]

    def text(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens, without special ones and without white space around it."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True).strip()

    def stream(self, stops: Sequence[str]) -> AnswerText:
        """The text of an answer as it grows, cut at the first of `stops`."""
        return AnswerText(self, self._tokenizer, stops)


class AnswerText:
    """An answer's text, token by token; what it gives out, joined, is the whole answer's text.

    Text is held back while it may still change or go: bytes that are no whole character yet, white space that may be
    the last, and what may be the beginning of a stop string.
    """

    def __init__(self, chat: Chat, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self.tokens: list[int] = []
        self.stopped = False
        """Whether a stop string was found: nothing more will be given out."""
        self._chat = chat
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stops = [stop for stop in stops if stop]
        self._seen = ""
        self._given = 0

    def push(self, token: int) -> str:
        """Take a token in; give out the text that is certain by now."""
        self.tokens.append(token)
        piece = self._step(token)
        if not piece or self.stopped:
            return ""
        self._seen += piece
        if not self._given:
            self._seen = self._seen.lstrip()
        # a stop string may begin in what was held back, never in what was given out
        if (place := self._first_stop()) is not None:
            self.stopped = True
            self._seen = self._seen[:place]
            return self._give(len(self._seen.rstrip()))
        return self._give(self._certain())

    def rest(self) -> str:
        """What is still held back, when the answer has ended."""
        if self.stopped:
            return ""
        # the decoder keeps the last, incomplete character to itself
        whole = self._chat.text(self.tokens)
        if whole.startswith(self._seen[: self._given]):
            self._seen = whole
            if (place := self._first_stop()) is not None:
                self.stopped = True
                self._seen = whole[:place]
        return self._give(len(self._seen.rstrip()))

    @property
    def text(self) -> str:
        """All that was given out."""
        return self._seen[: self._given]

    def _step(self, token: int) -> str | None:
        try:
            return self._decoder.step(self._tokenizer, token)
        except Exception:  # the library raises the bare class
            # bytes that are no text changed the text before them, which may have been given out: go on from here
            self._decoder = DecodeStream(skip_special_tokens=True)
            return self._decoder.step(self._tokenizer, token)

    def _first_stop(self) -> int | None:
        places = [place for stop in self._stops if (place := self._seen.find(stop)) >= 0]
        return min(places, default=None)

    def _certain(self) -> int:
        held = 0
        for stop in self._stops:
            longest = min(len(stop) - 1, len(self._seen))
            held = max(held, next((n for n in range(longest, 0, -1) if self._seen.endswith(stop[:n])), 0))
        return len(self._seen[: len(self._seen) - held].rstrip())

    def _give(self, end: int) -> str:
        begin, self._given = self._given, max(self._given, end)
        return self._seen[begin : self._given]


class _Generation(Extension):
    """The tag `{% generation %}` that training templates mark answers with; to a scoring server it is nothing."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own way

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _template(folder: Path, config: dict[str, Any]) -> jinja2.Template:
    file = folder / "chat_template.jinja"
    text = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if not isinstance(text, str):
        raise BadInput(f"{file}: is missing; export the model with a tokenizer that has a chat template")
    # the environment that chat templates are written for: transformers' documentation, "Chat templates"
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise BadInput(f"{file}, line {error.lineno}: is no Jinja template ({error.message})") from error


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tokenizer(file: Path) -> Tokenizer:
    if not file.is_file():
        raise BadInput(f"{file}: is missing; export the model with a fast tokenizer")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises the bare class
        raise BadInput(f"{file}: is no tokenizer ({error})") from error
    # limits of training, that would cut a prompt in silence
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInput(f"{file}: is not JSON ({error})") from error


def _text(value: str | dict[str, Any]) -> str:
    """A special token, which older files write as an object."""
    return value["content"] if isinstance(value, dict) else value
