"""SQuAD's measures by hand-made cases; batches that answer as single questions do; loss and perplexity.

python -m pytest tests/training/test_evaluation.py
"""

import dataclasses
import json
import math

import pytest

from encoding import encode, prompt_ids
from evaluation import Answer, Evaluation, compare, evaluate, exact_match, generate, normalise, token_f1
from model import load_model, load_tokenizer
from tests.training.program import sample_rows


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The  Answer, is: A test!", "answer is test"),
        ("an apple a day", "apple day"),
        ("theatre and another banana", "theatre and another banana"),
        ("Bill Gates\nand\tPaul Allen.", "bill gates and paul allen"),
        ("it's 1,975", "its 1975"),
        ("...", ""),
        ("", ""),
        ("THE", ""),
        ("Grüße aus Köln", "grüße aus köln"),
    ],
)
def test_normal_form(text, form):
    assert normalise(text) == form


@pytest.mark.parametrize(
    ("answer", "expected", "match", "f1"),
    [
        ("Bill Gates and Paul Allen", "Bill Gates and Paul Allen.", 1, 1),
        ("the year 1975", "Year: 1975", 1, 1),
        ("Paul Allen", "Bill Gates and Paul Allen", 0, 2 * 2 / (2 + 5)),
        ("1975 1975 1975", "1975", 0, 2 * 1 / (3 + 1)),
        ("red green", "green red", 0, 1),
        ("red", "blue", 0, 0),
        ("", "blue", 0, 0),
        ("the", "", 1, 1),
    ],
)
def test_measures(answer, expected, match, f1):
    assert exact_match(answer, expected) == match
    assert token_f1(answer, expected) == pytest.approx(f1)


def test_better_and_worse():
    def answers(*scores):
        return [Answer("q", "e", "a", 0.0, score) for score in scores]

    assert compare(answers(0.0, 0.5, 1.0, 0.2), answers(0.5, 0.5, 0.4, 0.3)) == ([0, 3], [2])
    with pytest.raises(ValueError, match="zip"):
        compare(answers(0.1), answers())


@pytest.fixture(scope="module")
def asked(tiny_config, phi_folder):
    """A model whose answers differ, its tokenizer, and held-out conversations."""
    import torch

    config = dataclasses.replace(tiny_config, model_name_or_path=str(phi_folder))
    tokenizer = load_tokenizer(config, [])
    model = load_model(config, tokenizer, 0)
    # an untrained model says the same whatever it is asked: large weights make it look at the question
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
    return model, tokenizer, [row["messages"] for row in sample_rows("held_out.jsonl", 11)]


def test_batched_answers_are_the_single_ones(asked):
    model, tokenizer, chats = asked
    prompts = [prompt_ids(chat[:-1], tokenizer) for chat in chats]
    assert len({len(prompt) for prompt in prompts}) > 5, "they are padded"
    single = [generate(model, tokenizer, [prompt], 12)[0] for prompt in prompts]
    assert len(set(single)) > 5, "they differ"
    assert generate(model, tokenizer, prompts, 12) == single


def test_evaluation_of_a_batch_is_that_of_each(asked):
    import torch

    model, tokenizer, chats = asked
    done = []
    settings = {"questions": 5, "max_new_tokens": 8, "max_length": 256}
    found = evaluate(model, tokenizer, chats, batch_size=4, advance=done.append, **settings)
    assert sum(done) == len(chats) + 5
    assert len(found.answers) == 5
    assert [answer.question for answer in found.answers] == [chat[-2]["content"] for chat in chats[:5]]
    assert [answer.expected for answer in found.answers] == [chat[-1]["content"] for chat in chats[:5]]
    one_by_one = evaluate(model, tokenizer, chats, batch_size=1, **settings)
    assert one_by_one.answers == found.answers
    assert one_by_one.loss == pytest.approx(found.loss, rel=1e-4)
    # the loss, by hand: over all the assistants' tokens of all the conversations
    total, count = 0.0, 0
    for chat in chats:
        row = encode(chat, tokenizer, assistant_only=True)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        count += int((labels != -100).sum())
    assert found.loss == pytest.approx(total / count, rel=1e-4)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.token_f1 == pytest.approx(sum(answer.token_f1 for answer in found.answers) / 5)


def test_evaluation_leaves_the_model_as_it_was(asked):
    model, tokenizer, chats = asked
    settings = {"questions": 1, "max_new_tokens": 1, "max_length": 256, "batch_size": 4}
    for training in (True, False):
        model.train(training)
        evaluate(model, tokenizer, chats[:2], **settings)
        assert model.training is training
    model.eval()


def test_long_prompts_keep_their_end(asked):
    model, tokenizer, _ = asked
    long = [{"role": "user", "content": "word " * 300 + "Why?"}, {"role": "assistant", "content": "So."}]
    found = evaluate(model, tokenizer, [long], questions=1, max_new_tokens=4, max_length=64, batch_size=1)
    (answer,) = found.answers
    cut = prompt_ids(long[:1], tokenizer)[-64:]
    assert answer.answer == generate(model, tokenizer, [cut], 4)[0]
    assert found.loss == 0, "no token of the answer is within the limit"


def test_evaluation_survives_its_file(asked):
    model, tokenizer, chats = asked
    found = evaluate(model, tokenizer, chats, questions=3, max_new_tokens=3, max_length=256, batch_size=4)
    assert Evaluation.from_dict(json.loads(json.dumps(dataclasses.asdict(found)))) == found
    assert found.metrics().keys() == {"loss", "perplexity", "exact_match", "token_f1"}
