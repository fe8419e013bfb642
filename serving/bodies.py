"""The requests that are understood, field by field; anything else in them is refused by name.

The field names are OpenAI's for /v1/chat/completions, the tutorial's and MLflow's for /score and /invocations.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Temperature = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, description="0 is greedy")]
TopP = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]


class Body(BaseModel):
    """Strict: no unknown fields, no number as text, no text as number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Body):
    """OpenAI's way to write text that could also be a picture."""

    type: Literal["text"]
    text: str


def _joined(content: Any) -> Any:
    """Text parts as the text they are; anything else as it is, for pydantic to judge."""
    if isinstance(content, list):
        return "".join(TextPart.model_validate(part).text for part in content)
    return content


class Message(Body):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined, json_schema_input_type=str | list[TextPart])]


def _ends_with_user(messages: list[Message]) -> list[Message]:
    if messages[-1].role != "user":
        raise ValueError("must end with a user message")
    return messages


Messages = Annotated[list[Message], Field(min_length=1, max_length=4096)]


class StreamOptions(Body):
    """What a stream tells besides the answer."""

    include_usage: bool = False


class ChatRequest(Body):
    """OpenAI's chat completion; of its other fields those are taken whose value changes nothing."""

    messages: Messages
    model: str = Field(min_length=1, max_length=256)
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = Field(
        None, description="0 is greedy, and what it is when unset, as in the model's signature"
    )
    top_p: TopP | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None

    @model_validator(mode="after")
    def _agree(self) -> ChatRequest:
        _ends_with_user(self.messages)
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


Text = Annotated[str, Field(min_length=1)]


class ScoreRequest(Body):
    """The tutorial's request: a text, several texts, or the messages of one conversation."""

    input_data: Text | Annotated[list[Text], Field(min_length=1)] | Messages
    params: Params = Params()

    def conversations(self) -> list[list[dict[str, str]]]:
        """Each prompt as messages."""
        if isinstance(self.input_data, str):
            return [[{"role": "user", "content": self.input_data}]]
        if isinstance(self.input_data[0], str):
            return [[{"role": "user", "content": text}] for text in self.input_data]
        return [[message.model_dump() for message in self.input_data]]


class Row(Body):
    """A row of the model's signature."""

    messages: Messages


class Columns(Body):
    """Rows as columns."""

    messages: Annotated[list[Messages], Field(min_length=1)]


class Split(Body):
    """A pandas DataFrame, split-oriented."""

    columns: Annotated[list[Literal["messages"]], Field(min_length=1, max_length=1)]
    data: Annotated[list[Annotated[list[Messages], Field(min_length=1, max_length=1)]], Field(min_length=1)]
    index: list[int | str] | None = None


class InvocationsRequest(Body):
    """What MLflow's scoring server takes for this model's signature: exactly one of its input formats."""

    inputs: Annotated[list[Row], Field(min_length=1)] | Columns | None = None
    instances: Annotated[list[Row], Field(min_length=1)] | None = None
    dataframe_records: Annotated[list[Row], Field(min_length=1)] | None = None
    dataframe_split: Split | None = None
    params: Params | None = None

    @model_validator(mode="after")
    def _one(self) -> InvocationsRequest:
        formats = ("inputs", "instances", "dataframe_records", "dataframe_split")
        if sum(getattr(self, name) is not None for name in formats) != 1:
            raise ValueError(f"exactly one of {', '.join(formats)} is needed")
        return self
