"""Conversations to tokens and tokens to text: as transformers has both, and alike whether whole or streamed."""

import json
import random
from dataclasses import replace

import pytest

from serving.chat import Chat
from serving.errors import BadInput, Refused
from serving.model_folder import ModelFolder, read
from tests.serving.server import ROOT

ROWS = [
    json.loads(line)["messages"]
    for line in (ROOT / "training" / "sample" / "held_out.jsonl").read_text(encoding="utf-8").splitlines()
]
#: Text that is several tokens a character, or joined characters, or written from right to left.
HARD = "  Grüße 👩‍🚀 مرحبا 你好 \t zwei  Leerzeichen,\r\n\nzwei Zeilen 🇪🇺 \n"

#: Templates as models bring them: what each asks of the environment it is rendered in.
TEMPLATES = {
    "special tokens": "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}",
    "blocks on lines of their own": """
    {% for message in messages %}
        {% if message['role'] == 'user' %}
<|user|>
{{ message['content'] | trim }}<|end|>
        {% else %}
<|assistant|>
{{ message['content'] }}<|end|>
        {% endif %}
    {% endfor %}
    {% if add_generation_prompt %}
<|assistant|>
    {% endif %}
""",
    "tojson": "{% for m in messages %}{{ m | tojson }}{{ m.content | tojson(indent=2) }}{% endfor %}",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "marked answers": "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|end|>{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "its own words": "{% if tools is defined and tools %}tools{% endif %}{% set ns = namespace(n=0) %}"
    "{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ m.content }}{% endfor %}",
    "today": "{{ strftime_now('%Y') }}{{ messages[0].content }}",
}


@pytest.fixture(scope="module")
def model(tiny_model) -> ModelFolder:
    return read(tiny_model)


@pytest.fixture(scope="module")
def chat(model) -> Chat:
    return Chat(model)


@pytest.fixture(scope="module")
def tokenizer(model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model.weights, local_files_only=True)


@pytest.fixture
def other(model, tmp_path):
    """The same tokenizer with files of its folder changed."""

    def make(**files: str) -> ModelFolder:
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            text = files.get(file.partition(".")[0], (model.weights / file).read_text(encoding="utf-8"))
            (tmp_path / file).write_text(text, encoding="utf-8")
        return replace(model, weights=tmp_path)

    return make


def expected(tokenizer, messages) -> list[int]:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]


def streamed(chat: Chat, tokens: list[int], *stops: str) -> str:
    stream = chat.stream(stops)
    return "".join([stream.push(token) for token in tokens]) + stream.rest()


@pytest.fixture(scope="module")
def answers(tokenizer) -> list[list[int]]:
    """Token ids of answers: the sample's, and some that are harder to cut."""
    texts = [messages[-1]["content"] for messages in ROWS[::8]] + [HARD, f"{ROWS[0][-1]['content']} {HARD}"]
    return [[*tokenizer.encode(text, add_special_tokens=False), 6] for text in texts]


def test_prompts_of_the_sample_are_those_of_transformers(chat, tokenizer):
    for messages in ROWS:
        assert chat.prompt(messages[:-1]) == expected(tokenizer, messages[:-1])


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("content", ["Hello", HARD, "<|end|><|assistant|>\n", "{{ 7 * 7 }}", "\u0000", ""])
def test_prompts_of_other_templates_are_those_of_transformers(other, template, content):
    from transformers import AutoTokenizer

    model = other(chat_template=template)
    reference = AutoTokenizer.from_pretrained(model.weights, local_files_only=True)
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": content},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": content},
    ]
    assert Chat(model).prompt(messages) == expected(reference, messages)


def test_a_template_in_the_tokenizers_configuration_is_found(other, model):
    config = json.loads((model.weights / "tokenizer_config.json").read_text(encoding="utf-8"))
    changed = other(tokenizer_config=json.dumps(config | {"chat_template": "{{ messages[0].content }}"}))
    (changed.weights / "chat_template.jinja").unlink()
    assert Chat(changed).text(Chat(changed).prompt([{"role": "user", "content": "Hello"}])) == "Hello"


def test_what_a_template_refuses_is_refused_in_its_words(other):
    chat = Chat(other(chat_template="{{ raise_exception('roles must alternate') }}"))
    with pytest.raises(Refused, match=r"^messages: .*roles must alternate") as refused:
        chat.prompt([{"role": "user", "content": "canary"}])
    assert (refused.value.status, refused.value.field) == (400, "messages")


def test_a_template_that_fails_repeats_nothing(other):
    chat = Chat(other(chat_template="{{ messages[0].content + 1 }}{{ messages[7].role.x.y }}"))
    with pytest.raises(Refused, match=r"^messages: ") as refused:
        chat.prompt([{"role": "user", "content": "canary"}])
    assert "canary" not in refused.value.message


def test_a_conversation_without_any_text_is_refused(other):
    chat = Chat(other(chat_template="{{ messages[0].content }}"))
    with pytest.raises(Refused, match=r"^input_data\.1: there is no text in it"):
        chat.prompt([{"role": "user", "content": ""}], "input_data.1")


def test_a_template_reaches_nothing_of_the_server(other):
    chat = Chat(other(chat_template="{{ messages.__class__.__mro__[1].__subclasses__() }}"))
    with pytest.raises(Refused):
        chat.prompt([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"chat_template": "{% if"}, "chat_template.jinja, line 1"),
        ({"tokenizer": "{}"}, "tokenizer.json"),
        ({"tokenizer": "no"}, "tokenizer.json"),
        ({"tokenizer_config": "{"}, "tokenizer_config.json"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(other, files, named):
    with pytest.raises(BadInput, match=named):
        Chat(other(**files))


@pytest.mark.parametrize("missing", ["tokenizer.json", "chat_template.jinja"])
def test_a_file_that_is_missing_is_named(other, missing):
    model = other()
    (model.weights / missing).unlink()
    with pytest.raises(BadInput, match=f"{missing}: is missing"):
        Chat(model)


def test_text_is_that_of_transformers(chat, tokenizer, answers):
    for tokens in answers:
        assert chat.text(tokens) == tokenizer.batch_decode([tokens], skip_special_tokens=True)[0].strip()


def test_the_stream_is_the_whole_text_wherever_it_is_cut(chat, answers):
    for tokens in (answers[0], *answers[-2:]):
        for end in range(len(tokens) + 1):
            assert streamed(chat, tokens[:end]) == chat.text(tokens[:end])


def test_whatever_tokens_come_the_stream_is_their_text(chat, tokenizer):
    draw = random.Random(0)
    for _ in range(300):
        tokens = draw.choices(range(len(tokenizer)), k=draw.randrange(1, 30))
        assert streamed(chat, tokens) == chat.text(tokens)


def test_no_piece_of_a_stream_is_half_a_character(chat, answers):
    stream = chat.stream(())
    assert not [piece for token in answers[-2] if "\ufffd" in (piece := stream.push(token))]


def test_text_is_cut_at_the_first_stop_string_wherever_it_lies(chat, answers):
    for tokens in (answers[0], answers[-1]):
        whole = chat.text(tokens)
        for begin in range(1, len(whole), 5):
            for length in (1, 4, 11):
                stop = whole[begin : begin + length]
                stream = chat.stream((stop, "never said"))
                text = "".join([stream.push(token) for token in tokens]) + stream.rest()
                assert text == whole[: whole.find(stop)].rstrip()
                assert stream.stopped


def test_the_earliest_of_several_stop_strings_counts(chat, tokenizer):
    tokens = tokenizer.encode("Bill Gates and Paul Allen", add_special_tokens=False)
    assert streamed(chat, tokens, "Allen", "Paul", " and P") == "Bill Gates"


def test_nothing_is_given_out_that_a_stop_string_takes_back(chat, tokenizer):
    tokens = tokenizer.encode("Bill Gates and Paul Allen", add_special_tokens=False)
    stream, given = chat.stream(("Gates and Paul",)), ""
    for token in tokens:
        given += stream.push(token)
        assert "Gates and Paul".startswith(given.removeprefix("Bill").strip()) or given == "Bill"
        assert "Gates" not in given


def test_the_beginning_of_a_stop_string_alone_is_text(chat, tokenizer):
    tokens = tokenizer.encode("Bill Gates", add_special_tokens=False)
    assert streamed(chat, tokens, "Gates and Paul") == "Bill Gates"


def test_bytes_that_are_no_text_end_no_stream(tmp_path, model):
    # a tokenizer of Phi-3's own kind, whose decoder turns single bytes into text when they make some
    from tokenizers import Tokenizer, decoders, models, normalizers

    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["<unk>", *bytes_, "▁", "▁the", "▁Paul", "é", "."]
    tokenizer = Tokenizer(
        models.BPE({word: number for number, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    chat = Chat(replace(model, weights=tmp_path))

    draw = random.Random(0)
    texts = (" the", " Paul", "é", "👩‍🚀", "مرحبا", " ", "\n", "。")
    for _ in range(500):
        tokens = tokenizer.encode("".join(draw.choices(texts, k=draw.randrange(1, 9)))).ids
        assert streamed(chat, tokens) == chat.text(tokens)
    for _ in range(500):
        tokens = [*draw.choices(range(len(words)), k=20), words.index("▁the")]
        assert streamed(chat, tokens).endswith("the")
