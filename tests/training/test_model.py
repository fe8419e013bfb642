"""The embedded model and its tokenizer, models of a folder, and every way in which a folder is no model.

python -m pytest tests/training/test_model.py
"""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from errors import BadInput
from model import SPECIAL_TOKENS, load_model, load_tokenizer, parameter_count

TRAINING = Path(__file__).parents[2] / "training"
TEXTS = [
    "Who founded Microsoft?",
    " leading, trailing \t and\n\n\nnew lines ",
    "Grüße, naïve café, Ελλάδα, Привет",
    "مرحبا بالعالم, שלום עולם",
    "日本語 한국어 ภาษาไทย",
    "👩‍👩‍👧‍👦 🏳️‍🌈 \U0001f9d1\U0001f3fd‍\U0001f4bb",
    "\u0000\u200b\ufeff\u202e",
    "x = [i ** 2 for i in range(10)]  # 1 , 2 . 3 ' n't",
]


def say(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_tiny_is_a_small_phi3(tiny_config, tokenizer):
    from transformers import Phi3ForCausalLM

    model = load_model(tiny_config, tokenizer, seed=3)
    assert type(model) is Phi3ForCausalLM
    assert 1e6 <= parameter_count(model) <= 5e6
    assert model.config.vocab_size >= len(tokenizer)
    assert (model.config.use_cache, model.config.pad_token_id) == (False, tokenizer.pad_token_id)
    ends = tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])
    assert sorted(model.generation_config.eos_token_id) == sorted(ends)


def test_tiny_is_seeded(tiny_config, tokenizer):
    import torch

    one, same, other = (load_model(tiny_config, tokenizer, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_tiny_attention_is_the_recipes(tiny_config, tokenizer):
    for attention in ("eager", "sdpa"):
        model = load_model(dataclasses.replace(tiny_config, attn_implementation=attention), tokenizer, 0)
        assert model.config._attn_implementation == attention


def test_special_tokens_are_phi3s(tokenizer):
    assert {"<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|endoftext|>"} <= set(SPECIAL_TOKENS)
    for token in SPECIAL_TOKENS:
        assert tokenizer.encode(token) == [tokenizer.convert_tokens_to_ids(token)], "one token each"
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token) == ("<|endoftext|>", "<unk>", "<unk>")
    assert tokenizer.padding_side == "right"


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_tokenizer_is_the_same_for_the_same_texts(tiny_config, tokenizer, rows):
    again = load_tokenizer(tiny_config, (message["content"] for row in rows for message in row["messages"]))
    assert again.get_vocab() == tokenizer.get_vocab()
    assert tokenizer.encode("Who founded Microsoft?") == again.encode("Who founded Microsoft?")


def test_template_is_phi3_5s_with_the_empty_system_message(tokenizer):
    def render(*turns, **more):
        return tokenizer.apply_chat_template(say(*turns), tokenize=False, **more)

    whole = render(("system", "Be brief."), ("user", "Why?"), ("assistant", "So."))
    assert whole == ("<|system|>\nBe brief.<|end|>\n<|user|>\nWhy?<|end|>\n<|assistant|>\nSo.<|end|>\n<|endoftext|>")
    assert render(("user", "Why?"), add_generation_prompt=True) == "<|user|>\nWhy?<|end|>\n<|assistant|>\n"
    # Phi-3.5's template leaves an empty system message out: with or without one, it is the same text
    assert render(("system", ""), ("user", "Why?")) == render(("user", "Why?"))


def test_empty_system_message_is_put_in_where_the_template_shows_it(tmp_path, phi_folder, tiny_config):
    from transformers import AutoTokenizer
    from trl.chat_template_utils import phi3_chat_template

    folder = tmp_path / "phi-3"
    shutil.copytree(phi_folder, folder)
    (folder / "chat_template.jinja").write_text(phi3_chat_template)
    raw = AutoTokenizer.from_pretrained(folder)
    assert raw.chat_template == phi3_chat_template
    tokenizer = load_tokenizer(dataclasses.replace(tiny_config, model_name_or_path=str(folder)), [])
    turns, system = [("user", "Why?"), ("assistant", "So.")], [("system", "Be brief.")]
    # the tutorial's preprocessing: insert an empty system message where there is none, then render
    wanted = raw.apply_chat_template(say(("system", ""), *turns), tokenize=False)
    assert wanted.startswith("<|system|>\n<|end|>\n")
    assert tokenizer.apply_chat_template(say(*turns), tokenize=False) == wanted
    given = raw.apply_chat_template(say(*system, *turns), tokenize=False)
    assert tokenizer.apply_chat_template(say(*system, *turns), tokenize=False) == given
    # saved and loaded again, as training's export does, it is put in once
    tokenizer.save_pretrained(folder)
    again = load_tokenizer(dataclasses.replace(tiny_config, model_name_or_path=str(folder)), [])
    assert again.apply_chat_template(say(*turns), tokenize=False) == wanted


def test_folder_is_loaded(phi_folder, tiny_config):
    import torch
    from safetensors.torch import load_file

    config = dataclasses.replace(tiny_config, model_name_or_path=str(phi_folder))
    tokenizer = load_tokenizer(config, ["never read"])
    model = load_model(config, tokenizer, seed=0)
    written = load_file(phi_folder / "model.safetensors")
    assert written and all(torch.equal(model.state_dict()[name], tensor) for name, tensor in written.items())
    assert (tokenizer.pad_token, tokenizer.padding_side) == ("<unk>", "right")
    assert model.dtype == torch.float32


def test_end_token_is_never_padding(tmp_path, phi_folder, tiny_config):
    folder = tmp_path / "padded-with-its-end"
    shutil.copytree(phi_folder, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"pad_token": "<|endoftext|>"}))
    tokenizer = load_tokenizer(dataclasses.replace(tiny_config, model_name_or_path=str(folder)), [])
    assert tokenizer.pad_token == "<unk>" != tokenizer.eos_token


def refusal(config, name: str | Path) -> str:
    config = dataclasses.replace(config, model_name_or_path=str(name))
    with pytest.raises(BadInput) as caught:
        load_model(config, load_tokenizer(config, []), seed=0)
    (line,) = caught.value.findings
    assert line.startswith(f"model {name}: ") and "\n" not in line
    return line


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def pickled_weights(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def truncated_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])


def truncated_config(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text()[:100])


def other_weights(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))


def unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "phi99"}))


def code_of_its_own(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(folder / 'it-ran')!r}, 'w')\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_template, "has no chat template; choose an instruct model"),
        (pickled_weights, "no weights as safetensors; convert them first"),
        (no_weights, "no weights as safetensors"),
        (truncated_weights, "not a model folder that transformers can read"),
        (truncated_config, "not a model folder that transformers can read"),
        (other_weights, "not a model folder that transformers can read"),
        (unknown_architecture, "not a model folder that transformers can read"),
        (code_of_its_own, "never run; choose a model that transformers knows"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damaged_folder(tmp_path, phi_folder, tiny_config, damage, words):
    folder = tmp_path / "model"
    shutil.copytree(phi_folder, folder)
    damage(folder)
    assert words in refusal(tiny_config, folder)
    assert not (folder / "it-ran").exists()


def test_folder_that_is_no_model(tmp_path, tiny_config):
    assert "not a model folder" in refusal(tiny_config, tmp_path)
    assert "no such folder" in refusal(tiny_config, tmp_path / "nowhere")
    assert "no such folder" in refusal(tiny_config, "./nowhere")


def test_code_of_a_hub_is_never_trusted():
    given = [
        (path.name, value)
        for path in TRAINING.rglob("*.py")
        for value in re.findall(r"trust_remote_code\s*[=:]\s*(\w+)", path.read_text(encoding="utf-8"))
    ]
    assert {value for _, value in given} == {"False"}
    loaded = [path for path in TRAINING.glob("*.py") if "from_pretrained(" in path.read_text(encoding="utf-8")]
    assert {"model.py", "export.py"} <= {path.name for path in loaded}
    assert not any("trust_remote_code" in path.read_text(encoding="utf-8") for path in TRAINING.glob("recipes/*"))
