"""From conversations to batches: token ids, labels, packing, padding.

    python -c "from encoding import encode; help(encode)"

A conversation is rendered once with the tokenizer's chat template. Packed conversations share a row but never see each
other: positions start again at 0 with each, and transformers builds a block-diagonal causal mask wherever they do. Rows
stay rows (TRL's own padding-free batches are one long row, whose mask grows with the square of the batch), and packed
rows all have one length, so that a compiled model is compiled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from errors import BadInput

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100

Message = dict[str, str]


def encode(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, assistant_only: bool
) -> dict[str, list[int]]:
    """Token ids and labels of one conversation.

    A label is the token itself where it counts and -100 where it does not: the first token (nothing predicts it) and,
    with `assistant_only`, all that the assistant did not say. An assistant's turn runs from after its header through
    its end token, found by rendering the conversation's prefixes, which works for any template that adds to the end.
    """
    ids = _render(messages, tokenizer)
    if not assistant_only:
        return {"input_ids": ids, "labels": [IGNORED, *ids[1:]]}
    labels = [IGNORED] * len(ids)
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = _shared(ids, _render(messages[:index], tokenizer, header=True))
        last = index == len(messages) - 1
        end = len(ids) if last else _shared(ids, _render(messages[: index + 1], tokenizer))
        labels[start:end] = ids[start:end]
    labels[0] = IGNORED
    return {"input_ids": ids, "labels": labels}


def encode_dataset(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, max_length: int, packing: bool, assistant_only: bool
) -> Dataset:
    """Encode a dataset of `messages`, cut to `max_length` tokens and, with `packing`, fill rows with whole ones.

    Returns:
        Columns `input_ids` and `labels`, and `seq_lengths` (the lengths of the conversations of a row) when packed.

    Raises:
        BadInput: nothing is left to learn, because every answer lies behind `max_length`.
    """
    from jinja2 import TemplateError
    from trl import pack_dataset

    def one(row: dict[str, Any]) -> dict[str, list[int]]:
        encoded = encode(row["messages"], tokenizer, assistant_only)
        return {column: tokens[:max_length] for column, tokens in encoded.items()}

    try:
        encoded = dataset.map(one, remove_columns=dataset.column_names)
    except TemplateError as error:
        raise BadInput(f"the model's chat template refuses the data: {' '.join(str(error).split())}") from error
    encoded = encoded.filter(lambda labels: any(label != IGNORED for label in labels), input_columns="labels")
    if not len(encoded):
        raise BadInput(f"max_length: no conversation has an answer within {max_length} tokens; raise max_length")
    return pack_dataset(encoded, max_length, strategy="bfd") if packing else encoded


@dataclass
class Collator:
    """Rows to a batch of tensors, all (rows, tokens): `input_ids`, `labels`, `position_ids`.

    No attention mask is made: padding stands at the end of a row, where causal attention never looks back from, with
    positions of its own. With `length` every batch has that many tokens a row; without, the longest row's. With `rows`
    a short last batch is filled up with rows that do not count, so that a compiled model sees one shape.
    """

    pad_token_id: int
    length: int | None = None
    rows: int | None = None

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        length = self.length or max(len(row["input_ids"]) for row in rows)
        shape = (max(len(rows), self.rows or 0), length)
        ids = torch.full(shape, self.pad_token_id)
        labels = torch.full(shape, IGNORED)
        positions = torch.arange(length).repeat(shape[0], 1)
        for index, row in enumerate(rows):
            count = len(row["input_ids"])
            ids[index, :count] = torch.tensor(row["input_ids"])
            labels[index, :count] = torch.tensor(row["labels"])
            spans = [*row.get("seq_lengths", [count]), length - count]
            positions[index] = torch.cat([torch.arange(span) for span in spans])
        return {"input_ids": ids, "labels": labels, "position_ids": positions}


def prompt_ids(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a conversation that waits for the assistant's answer."""
    return _render(messages, tokenizer, header=True)


def _render(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, header: bool = False) -> list[int]:
    return tokenizer.apply_chat_template(list(messages), tokenize=True, add_generation_prompt=header, return_dict=True)[
        "input_ids"
    ]


def _shared(whole: list[int], prefix: list[int]) -> int:
    """How many tokens two renderings have in common at their beginning."""
    for index, (one, other) in enumerate(zip(whole, prefix, strict=False)):
        if one != other:
            return index
    return min(len(whole), len(prefix))
