"""The requests that are understood, field by field; anything else in them is refused by name.

The field names are OpenAI's for /v1/chat/completions, the tutorial's and MLflow's for /score and /invocations.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator


def _encodable(text: str) -> str:
    # JSON can write half of a surrogate pair; no tokenizer can read it
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not Unicode text: it holds half of a surrogate pair") from None
    return text


Characters = Annotated[str, AfterValidator(_encodable)]
Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, description="0 is greedy")]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]
Stop = Annotated[Characters, Field(min_length=1, max_length=256)]
Text = Annotated[Characters, Field(min_length=1)]


# Of a list that may be long the first item that cannot be used is told: a finding for each would take a thousand times
# the body's memory.

# Where a field may be of several kinds, the kind is told by a tag: pydantic would otherwise report what is wrong with
# the value as each of them. A tag is no field's name (serving/answers.py leaves out what begins with "<").


def _text_or_list(value: Any) -> str | None:
    return "<text>" if isinstance(value, str) else "<list>" if isinstance(value, list) else None


def _text_or_texts_or_messages(value: Any) -> str | None:
    if isinstance(value, list) and value and not isinstance(value[0], str):
        return "<messages>"
    return _text_or_list(value)


def _rows_or_row(value: Any) -> str | None:
    return "<list>" if isinstance(value, list) else "<row>" if isinstance(value, dict) else None


def _by(kind: Any, words: str) -> Discriminator:
    return Discriminator(kind, custom_error_type="kind", custom_error_message=f"must be {words}")


class Body(BaseModel):
    """Strict: no unknown fields, no number as text, no text as number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Body):
    """OpenAI's way to write text that could also be a picture."""

    type: Literal["text"]
    text: Characters


def _joined(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[
        Annotated[Characters, Tag("<text>")] | Annotated[list[TextPart], Field(fail_fast=True), Tag("<list>")],
        _by(_text_or_list, "a text, or a list of text parts"),
        AfterValidator(_joined),
    ]


def _ends_with_user(messages: list[Message]) -> list[Message]:
    if messages[-1].role != "user":
        raise ValueError("must end with a user message")
    return messages


Messages = Annotated[list[Message], Field(min_length=1, max_length=4096), AfterValidator(_ends_with_user)]


class StreamOptions(Body):
    """What a stream tells besides the answer."""

    include_usage: bool = False


def _false(value: bool) -> bool:
    # (to Python, and so to a Literal, 0 is False and True is 1)
    if value:
        raise ValueError("must be false")
    return value


class ChatRequest(Body):
    """OpenAI's chat completion; of its other fields those are taken whose value changes nothing."""

    messages: Messages
    model: Annotated[Characters, Field(min_length=1, max_length=256)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = Field(
        None, description="0 is greedy, and what it is when unset, as in the model's signature"
    )
    top_p: TopP | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[
            Annotated[Stop, Tag("<text>")] | Annotated[list[Stop], Field(max_length=4), Tag("<list>")],
            _by(_text_or_list, "a text, or a list of up to 4 texts"),
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    user: Annotated[Characters, Field(max_length=512)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logprobs: Annotated[bool, AfterValidator(_false), Field(json_schema_extra={"const": False})] | None = None

    @model_validator(mode="after")
    def _agree(self) -> ChatRequest:
        if self.stream_options and not self.stream:
            raise ValueError("stream_options: only with stream: true")
        return self

    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class Params(Body):
    """How the model generates, by the names of its MLflow signature."""

    max_new_tokens: Tokens | None = None
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    do_sample: bool = True
    return_full_text: bool = False
    seed: Annotated[int, Field(ge=-1, lt=2**32, description="-1 draws anew each time")] = -1


class ScoreRequest(Body):
    """The tutorial's request: a text, several texts, or the messages of one conversation."""

    input_data: Annotated[
        Annotated[Text, Tag("<text>")]
        | Annotated[list[Text], Field(min_length=1, fail_fast=True), Tag("<list>")]
        | Annotated[Messages, Tag("<messages>")],
        _by(_text_or_texts_or_messages, "a text, a list of texts, or a list of messages"),
    ]
    params: Params = Params()

    def conversations(self) -> list[list[dict[str, str]]]:
        """Each prompt as messages."""
        if isinstance(self.input_data, str):
            return [[{"role": "user", "content": self.input_data}]]
        if isinstance(self.input_data[0], str):
            return [[{"role": "user", "content": text}] for text in self.input_data]
        return [[message.model_dump() for message in self.input_data]]


class Row(Body):
    """A row of the model's signature: one conversation."""

    messages: Messages


Rows = Annotated[list[Row], Field(min_length=1, fail_fast=True)]


class Split(Body):
    """A pandas DataFrame, split-oriented."""

    columns: Annotated[list[Literal["messages"]], Field(min_length=1, max_length=1)]
    data: Annotated[
        list[Annotated[list[Messages], Field(min_length=1, max_length=1)]], Field(min_length=1, fail_fast=True)
    ]
    index: Annotated[list[int], Field(fail_fast=True)] | None = None


class InvocationsRequest(Params):
    """What MLflow's scoring server takes for this model's signature: exactly one of its input formats.

    With `messages`, MLflow's format for chat models, the params stand beside it; with the others they are in `params`.
    """

    messages: Messages | None = None
    inputs: (
        Annotated[
            Annotated[Rows, Tag("<list>")] | Annotated[Row, Tag("<row>")],
            _by(_rows_or_row, "a list of rows, or one row"),
        ]
        | None
    ) = None
    instances: Row | None = None
    dataframe_records: Rows | None = None
    dataframe_split: Split | None = None
    params: Params | None = None

    @model_validator(mode="after")
    def _one(self) -> InvocationsRequest:
        formats = ("messages", "inputs", "instances", "dataframe_records", "dataframe_split")
        if sum(getattr(self, name) is not None for name in formats) != 1:
            raise ValueError(f"exactly one of {', '.join(formats)} is needed")
        beside = sorted(self.model_fields_set & Params.model_fields.keys())
        if self.messages is None and beside:
            raise ValueError(f"{beside[0]}: belongs into params")
        if self.messages is not None and self.params is not None:
            raise ValueError("params: not with messages; its fields belong beside messages")
        return self

    @property
    def format(self) -> str:
        """The field that holds the conversations."""
        formats = ("messages", "inputs", "instances", "dataframe_records")
        return next((name for name in formats if getattr(self, name) is not None), "dataframe_split")

    @property
    def items(self) -> int:
        """How many conversations there are."""
        if self.dataframe_split is not None:
            return len(self.dataframe_split.data)
        rows = self.inputs if self.inputs is not None else self.dataframe_records
        return len(rows) if isinstance(rows, list) else 1
