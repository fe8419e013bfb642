"""Counting tokens with a real tokenizer, and how far off the estimate is.

python -m pytest tests/training/test_token_count.py
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from errors import BadInput
from token_count import estimated_tokens, token_counter

tokenizers = pytest.importorskip("tokenizers")
TRAINING = Path(__file__).parents[2] / "training"
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"


def saved_tokenizer(folder: Path, vocabulary: int, template: str | None) -> Path:
    from transformers import PreTrainedTokenizerFast

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
        show_progress=False,
    )
    rows = (json.loads(line) for line in (TRAINING / "sample" / "train.jsonl").read_text(encoding="utf-8").splitlines())
    tokenizer.train_from_iterator((turn["content"] for row in rows for turn in row["messages"]), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


def test_template_is_counted(tmp_path):
    turns = [("user", "abc"), ("assistant", "de")]
    # a vocabulary of bytes alone: every byte is a token, and so is every special token
    bare = token_counter(str(saved_tokenizer(tmp_path / "bytes", 0, TEMPLATE)))
    assert bare(turns) == (1 + 1 + 3 + 1 + 1) + (1 + 1 + 2 + 1 + 1)
    plain = token_counter(str(saved_tokenizer(tmp_path / "plain", 0, None)))
    assert plain(turns) == len("user: abc\nassistant: de")


def test_estimate_is_near_a_tokenizer_of_english(tmp_path):
    count = token_counter(str(saved_tokenizer(tmp_path / "english", 1500, TEMPLATE)))
    rows = (json.loads(line) for line in (TRAINING / "sample" / "train.jsonl").read_text(encoding="utf-8").splitlines())
    chats = [[(turn["role"], turn["content"]) for turn in row["messages"]] for row in rows]
    counted = sum(map(count, chats))
    estimated = sum(estimated_tokens(sum(len(text.encode()) for _, text in chat), len(chat)) for chat in chats)
    assert 0.7 < estimated / counted < 1.3


def test_program_counts_with_a_tokenizer(tmp_path):
    folder = saved_tokenizer(tmp_path / "bytes", 0, TEMPLATE)
    chats = tmp_path / "chats.jsonl"
    rows = [{"question": "x" * length, "answer": "y"} for length in (10, 11)]
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, str(TRAINING / "prepare_data.py"), "check", str(chats), "--tokenizer", str(folder)]
    assert subprocess.run([*command, "--max-tokens", "20"], capture_output=True).returncode == 0
    result = subprocess.run([*command, "--max-tokens", "19"], capture_output=True, text=True)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line == f"error: {chats}:2: 20 tokens, the limit is 19; shorten it or raise --max-tokens"


def test_folder_that_holds_no_tokenizer(tmp_path):
    with pytest.raises(BadInput, match=r"--tokenizer.*: cannot be loaded"):
        token_counter(str(tmp_path))
