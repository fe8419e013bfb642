"""Models and tokenizers: any causal LM of the hub or of a folder, and `tiny`, which is built on the spot.

    python fine_tune.py --model tiny …
    python fine_tune.py --model microsoft/Phi-3.5-mini-instruct …

Weights are read as safetensors and through transformers' own classes only: code that a model repository ships is never
run. `tiny` is a Phi-3-architecture model with random weights and a tokenizer trained on the training conversations.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from errors import BadInput
from hub import ask_hub

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import ModelConfig

TINY = "tiny"
TINY_VOCABULARY = 2048

#: Phi-3's special tokens, in the order in which Phi-3's own vocabulary lists them.
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")

#: The tutorial's preprocessing (a conversation that does not begin with a system message gets an empty one), put into
#: the chat template itself, so that whoever renders it later, a scoring server say, cannot forget it.
SYSTEM_FIRST = (
    "{%- if messages and messages[0]['role'] != 'system' -%}"
    "{%- set messages = [{'role': 'system', 'content': ''}] + messages -%}"
    "{%- endif -%}"
)


def load_tokenizer(config: ModelConfig, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, ready for training: a pad token, padding on the right, the template of `SYSTEM_FIRST`.

    Args:
        config: TRL's model settings; `model_name_or_path` may be `tiny`.
        texts: what `tiny`'s tokenizer is trained on; not read for other models.

    Raises:
        BadInput: unknown or unreachable model, or one without a chat template.
    """
    name = config.model_name_or_path
    tokenizer = (
        _tiny_tokenizer(texts) if name == TINY else _from_hub(name, config.model_revision, _pretrained_tokenizer)
    )
    if isinstance(tokenizer.chat_template, dict):
        # several templates, for tools or retrieval: a chat takes the default one
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if not tokenizer.chat_template:
        raise BadInput(f"model {name}: its tokenizer has no chat template; choose an instruct model")
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # the end token must stay a token to learn, never padding (the tutorial pads with unk too)
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.padding_side = "right"
    # other families' templates refuse a system message, or put words of their own where there is none
    phi = all(token in tokenizer.chat_template for token in ("<|user|>", "<|assistant|>", "<|end|>"))
    if phi and SYSTEM_FIRST not in tokenizer.chat_template:
        tokenizer.chat_template = SYSTEM_FIRST + tokenizer.chat_template
    return tokenizer


def load_model(config: ModelConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """The model, in the precision and with the attention that the recipe names, on the GPU where there is one.

    Raises:
        BadInput: unknown or unreachable model, or weights that are not safetensors.
    """
    import torch

    name = config.model_name_or_path
    if name == TINY:
        model = _tiny_model(tokenizer, seed, config.attn_implementation)
    else:
        model = _from_hub(name, config.model_revision, lambda *where: _pretrained_model(config, *where))
    model.config.use_cache = False
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    # an answer ends where the turn ends, not only where the text does
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")} - {None, tokenizer.unk_token_id}
    known = model.generation_config.eos_token_id
    ends |= set(known if isinstance(known, list) else [known]) - {None}
    model.generation_config.eos_token_id = sorted(ends)
    if torch.cuda.is_available() and not config.load_in_4bit and not config.load_in_8bit:
        model = model.to("cuda")
    return model


def public_name(name: str) -> str:
    """A model's name as others may read it: of a folder, its own name only."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def parameter_count(model: PreTrainedModel) -> int:
    """Parameters of a model; tied ones count once, and those in 4 bits as many as they stand for."""
    return model.num_parameters()


def _tiny_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import phi3_5_chat_template

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=TINY_VOCABULARY,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|endoftext|>",
        pad_token="<unk>",
        additional_special_tokens=["<|assistant|>", "<|system|>", "<|end|>", "<|user|>"],
        chat_template=phi3_5_chat_template,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def _tiny_model(tokenizer: PreTrainedTokenizerBase, seed: int, attention: str | None) -> PreTrainedModel:
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM, set_seed

    set_seed(seed)
    config = Phi3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=1024,
        original_max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation=attention or "sdpa",
        dtype=torch.float32,
    )
    return Phi3ForCausalLM(config)


def _pretrained_tokenizer(name: str, revision: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)


def _pretrained_model(config: ModelConfig, name: str, revision: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM
    from trl import get_quantization_config

    return AutoModelForCausalLM.from_pretrained(
        name,
        revision=revision,
        dtype=config.dtype if config.dtype in (None, "auto") else getattr(torch, config.dtype),
        attn_implementation=config.attn_implementation,
        quantization_config=get_quantization_config(config),
        use_safetensors=True,
        # not the default: that asks on a terminal whether to run what the repository ships
        trust_remote_code=False,
    )


def _from_hub(name: str, revision: str, load):  # noqa: ANN001, ANN202 - the type is the loader's
    """Call a loader of transformers and say its many ways of failing in one line."""
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise BadInput(f"model {name}: no such folder")
    from safetensors import SafetensorError

    if not Path(name).is_dir():
        ask_hub(name, "model")
    try:
        return load(name, revision)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())
        if "out of memory" in text:
            raise
        if "contains custom code" in text or "trust_remote_code" in text:
            advice = "needs code that it ships itself, which is never run; choose a model that transformers knows"
        elif "file named model.safetensors" in text:
            advice = "has no weights as safetensors; convert them first (transformers' save_pretrained does)"
        elif isinstance(error, ImportError):
            advice = f"a package is missing ({text[:160]})"
        elif Path(name).is_dir():
            advice = f"not a model folder that transformers can read ({text[:160]})"
        elif any(sign in text for sign in ("gated", "restricted", "401", "403")):
            advice = "access is restricted; accept its terms on the hub and set HF_TOKEN"
        elif any(sign in text for sign in ("is not a valid git identifier", "404", "Not Found")):
            advice = f"the hub has not all of it, or no revision {revision!r}; check the name and model_revision"
        elif any(sign in text for sign in ("connect", "offline", "resolve", "Max retries", "couldn't", "network")):
            advice = "the model hub cannot be reached; check the network, or use `tiny` or a local folder"
        else:
            advice = text[:240]
        raise BadInput(f"model {name}: {advice}") from error
