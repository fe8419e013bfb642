"""Questions to a deployment through the real wire contract, with the endpoint's key: does it answer?

text = ask(uri, key, "Who founded Microsoft?", deployment="green")
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from devtools import models
from devtools.azure.prices import TIMEOUT as SHORT
from devtools.settings import ROOT

QUESTION = "Who founded Microsoft?"
#: Seconds for one answer, and for the endpoint's front door to know a new deployment.
TIMEOUT, PATIENCE = 180, 60
#: The front door's words for a deployment that it does not know yet, and for one that is busy.
NOT_YET = (404, 429, 502, 503)


class NoAnswer(Exception):
    """A deployment did not answer as it has to; the message says what came instead."""


def question_for(model: Path | None) -> str:
    """A question of those that the model's run was judged on; else the tutorial's."""
    held_out = models.held_out(model, ROOT) if model else None
    if held_out is None:
        return QUESTION
    with held_out.open(encoding="utf-8") as lines:
        first = json.loads(next(lines))
    asked = [message["content"] for message in first["messages"] if message["role"] == "user"]
    return asked[0] if asked else QUESTION


def ask(uri: str, key: str, question: str, deployment: str | None = None, **params: object) -> str:
    """The answer to one question; `deployment` is asked whatever traffic it gets.

    Raises:
        NoAnswer: there is none, or one of another form.
    """
    import requests

    headers = {"Authorization": f"Bearer {key}"}
    if deployment:
        headers["azureml-model-deployment"] = deployment
    body = {"input_data": [question], "params": params or {"max_new_tokens": 64}}
    try:
        answer = requests.post(uri, json=body, headers=headers, timeout=(SHORT, TIMEOUT))
    except requests.RequestException as error:
        raise NoAnswer(" ".join(str(error).split())[:200]) from error
    if answer.status_code != requests.codes.ok:
        raise NoAnswer(f"status {answer.status_code}: {' '.join(answer.text.split())[:200]}")
    try:
        (text,) = answer.json()
    except ValueError as error:
        raise NoAnswer(f"no JSON list of one answer: {answer.text[:120]!r}") from error
    if not isinstance(text, str) or not text.strip():
        raise NoAnswer(f"no text: {text!r}"[:120])
    return text


def ask_patiently(uri: str, key: str, question: str, deployment: str | None = None) -> str:
    """The same, asked again for a while where the front door does not know the deployment yet."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask(uri, key, question, deployment)
        except NoAnswer as error:
            unknown_yet = any(str(error).startswith(f"status {status}") for status in NOT_YET)
            if not unknown_yet or time.monotonic() > deadline:
                raise
        time.sleep(1)
