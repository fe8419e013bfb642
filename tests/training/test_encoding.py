"""What is learned of a conversation, and that packing and padding change nothing about what it is.

python -m pytest tests/training/test_encoding.py
"""

import dataclasses

import pytest

from encoding import IGNORED, Collator, encode, encode_dataset, prompt_ids
from errors import BadInput
from model import SYSTEM_FIRST, load_model
from tests.training.program import sample_rows

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who founded Microsoft?"},
    {"role": "assistant", "content": "Bill Gates and Paul Allen."},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "\n In 1975 \u2764\ufe0f. "},
]


def dataset(rows):
    from datasets import Dataset

    return Dataset.from_list(rows)


def learned(encoded: dict, tokenizer) -> str:
    return tokenizer.decode([label for label in encoded["labels"] if label != IGNORED])


def test_only_the_assistants_turns_are_learned(tokenizer):
    encoded = encode(CHAT, tokenizer, assistant_only=True)
    assert learned(encoded, tokenizer) == (
        "Bill Gates and Paul Allen.<|end|>\n" + "\n In 1975 \u2764\ufe0f. <|end|>\n<|endoftext|>"
    )
    assert tokenizer.decode(encoded["input_ids"]) == tokenizer.apply_chat_template(CHAT, tokenize=False)


def test_loss_on_all_is_every_token_but_the_first(tokenizer):
    encoded = encode(CHAT, tokenizer, assistant_only=False)
    assert encoded["labels"] == [IGNORED, *encoded["input_ids"][1:]]


@pytest.mark.parametrize("name", ["phi3", "phi3_5"])
def test_same_mask_as_trls_own_training_template(tokenizer, name):
    from trl import chat_template_utils

    chats = [row["messages"] for row in sample_rows("train.jsonl", 400)] + [CHAT, CHAT[1:], CHAT[:3]]
    assert sum(len(chat) > 3 for chat in chats) > 10, "conversations of several turns are among them"
    tokenizer.chat_template = SYSTEM_FIRST + getattr(chat_template_utils, f"{name}_chat_template")
    ours = [encode(chat, tokenizer, assistant_only=True) for chat in chats]
    tokenizer.chat_template = SYSTEM_FIRST + getattr(chat_template_utils, f"{name}_training_chat_template")
    for chat, encoded in zip(chats, ours, strict=True):
        theirs = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
        assert encoded["input_ids"] == theirs["input_ids"]
        assert [int(label != IGNORED) for label in encoded["labels"]] == list(theirs["assistant_masks"])


def test_prompt_is_the_beginning_of_the_conversation(tokenizer):
    whole = encode(CHAT, tokenizer, assistant_only=True)["input_ids"]
    prompt = prompt_ids(CHAT[:2], tokenizer)
    assert tokenizer.decode(prompt).endswith("<|assistant|>\n")
    assert whole[: len(prompt)] == prompt


def test_truncation_keeps_the_beginning(tokenizer):
    whole = encode(CHAT, tokenizer, assistant_only=True)
    for length in range(len(prompt_ids(CHAT[:2], tokenizer)) + 1, len(whole["input_ids"]) + 5, 7):
        (row,) = encode_dataset(
            dataset([{"messages": CHAT}]), tokenizer, max_length=length, packing=False, assistant_only=True
        )
        assert row == {name: values[:length] for name, values in whole.items()}


def test_conversation_whose_answer_is_cut_off_is_left_out(tokenizer):
    long = [{"role": "user", "content": "Why? " * 200}, {"role": "assistant", "content": "So."}]
    rows = [{"messages": long}, {"messages": CHAT}]
    encoded = encode_dataset(dataset(rows), tokenizer, max_length=60, packing=False, assistant_only=True)
    assert len(encoded) == 1
    with pytest.raises(BadInput, match="within 60 tokens; raise max_length"):
        encode_dataset(dataset(rows[:1]), tokenizer, max_length=60, packing=False, assistant_only=True)
    # with the loss on all tokens, its beginning is something to learn
    assert len(encode_dataset(dataset(rows[:1]), tokenizer, max_length=60, packing=False, assistant_only=False)) == 1


def test_packing_keeps_conversations_whole(tokenizer, rows):
    settings = {"max_length": 256, "assistant_only": True}
    alone = encode_dataset(dataset(rows), tokenizer, packing=False, **settings)
    packed = encode_dataset(dataset(rows), tokenizer, packing=True, **settings)
    assert len(packed) < len(alone) / 3
    parts = []
    for row in packed:
        assert sum(row["seq_lengths"]) == len(row["input_ids"]) == len(row["labels"]) <= 256
        start = 0
        for length in row["seq_lengths"]:
            parts.append((row["input_ids"][start : start + length], row["labels"][start : start + length]))
            start += length
    assert sorted(parts) == sorted((row["input_ids"], row["labels"]) for row in alone)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_conversations_do_not_see_each_other(tiny_config, tokenizer, rows, attention):
    import torch

    model = load_model(dataclasses.replace(tiny_config, attn_implementation=attention), tokenizer, seed=0).eval()
    packed = encode_dataset(dataset(rows), tokenizer, max_length=256, packing=True, assistant_only=True)
    packed = packed.select(range(3))
    assert min(len(row["seq_lengths"]) for row in packed) > 1
    batch = Collator(tokenizer.pad_token_id, length=300)(list(packed))
    with torch.inference_mode():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
        for index, row in enumerate(packed):
            start = 0
            for length in row["seq_lengths"]:
                ids = torch.tensor([row["input_ids"][start : start + length]])
                alone = model(input_ids=ids).logits[0]
                torch.testing.assert_close(together[index, start : start + length], alone, atol=2e-5, rtol=1e-4)
                start += length
        # the same row as one conversation is something else: the comparison would notice
        (row,) = packed.select([0])
        ids = torch.tensor([row["input_ids"]])
        seen = model(input_ids=ids, position_ids=torch.arange(ids.shape[1])[None]).logits[0]
        assert (seen - together[0, : ids.shape[1]]).abs().max() > 1e-2


def test_collator_shapes(tokenizer):
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [-100]}]
    pad = tokenizer.pad_token_id
    batch = Collator(pad)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, pad, pad]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [-100, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2], [0, 0, 1]]
    filled = Collator(pad, length=4, rows=3)(rows)
    assert filled["input_ids"].tolist() == [[5, 6, 7, pad], [8, pad, pad, pad], [pad] * 4]
    assert (filled["labels"][2] == IGNORED).all()
    packed = Collator(pad)([{**rows[0], "seq_lengths": [2, 1]}])
    assert packed["position_ids"].tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_nothing(tiny_config, tokenizer, rows, attention):
    import torch

    model = load_model(dataclasses.replace(tiny_config, attn_implementation=attention), tokenizer, seed=0).eval()
    encoded = list(encode_dataset(dataset(rows[:6]), tokenizer, max_length=256, packing=False, assistant_only=True))
    batch = Collator(tokenizer.pad_token_id, length=256, rows=8)(encoded)
    with torch.inference_mode():
        padded = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
        for index, row in enumerate(encoded):
            alone = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
            torch.testing.assert_close(padded[index, : len(alone)], alone, atol=2e-5, rtol=1e-4)
