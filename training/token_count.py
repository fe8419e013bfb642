"""How many tokens a conversation has: counted with a tokenizer where one is named, else estimated.

python training/prepare_data.py check data --tokenizer microsoft/Phi-3.5-mini-instruct
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from errors import BadInput
from layouts import Turn

#: Of English text in UTF-8; Phi-3's tokenizer comes to 3.5 to 4.5.
BYTES_PER_TOKEN = 4
#: What a chat template adds to each turn: the role's token, the end token, line breaks.
TOKENS_PER_TURN = 4


def estimated_tokens(content_bytes: int, turns: int) -> int:
    """Tokens of a conversation with this many bytes of text (UTF-8) in this many turns, give or take a fifth."""
    return content_bytes // BYTES_PER_TOKEN + TOKENS_PER_TURN * turns


def token_counter(tokenizer: str) -> Callable[[list[Turn]], int]:
    """A function that counts a conversation's tokens with a hub or local tokenizer and its chat template, if any.

    Raises BadInput when the tokenizer cannot be loaded.
    """
    if not Path(tokenizer).exists():
        from hub import ask_hub

        ask_hub(tokenizer, "model")
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(
            f"--tokenizer {tokenizer}: cannot be loaded ({reason}); give a folder, or a hub name while online"
        ) from None

    def rendered(turns: list[Turn]) -> str:
        if loaded.chat_template:
            messages = [{"role": role, "content": content} for role, content in turns]
            return loaded.apply_chat_template(messages, tokenize=False)
        return "\n".join(f"{role}: {content}" for role, content in turns)

    return lambda turns: len(loaded(rendered(turns), add_special_tokens=False)["input_ids"])
