"""Questions to a deployment through the real wire contract, with the endpoint's key: does it answer?

address = Address.of(workspace, "my-endpoint")
ask(address, "Who founded Microsoft?", deployment="green").text

Good is an answer of 200 with a JSON list of one text that is not empty.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devtools import models
from devtools.azure import endpoint
from devtools.azure.workspace import Workspace
from devtools.settings import ROOT

QUESTION = "Who founded Microsoft?"
#: Seconds to connect, for one answer, for what may pass by itself (the front door does not know a new deployment at
#: once, a new endpoint's name is not known everywhere), and between two tries.
CONNECT, TIMEOUT, PATIENCE, PERIOD = 10, 180, 120.0, 1.0
#: Statuses of what may pass by itself. Any of the container's own comes as 424, with its own in a header.
PASSING = (404, 408, 429, 502, 503, 504)
MODEL_FAILED, MODEL_STATUS = 424, "ms-azureml-model-error-statuscode"
#: Which deployment is to answer, and which did.
DEPLOYMENT = "azureml-model-deployment"
#: Characters of an answer that nobody asked for.
SHOWN = 200


@dataclass(frozen=True)
class Address:
    """Where an endpoint answers, and with which key."""

    uri: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, workspace: Workspace, name: str) -> Address:
        """Fetched now; raises BadInput where there is no such endpoint."""
        found = endpoint.require(workspace, name)
        return cls(found.scoring_uri, endpoint.keys(workspace, name).primary_key)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    text: str
    deployment: str | None
    """Who answered; None where the front door does not say."""


class NoAnswer(Exception):
    """A deployment did not answer as it has to; the message says what came instead."""

    def __init__(self, message: str, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        """Whether it may be otherwise in a moment."""


def question_for(model: Path | None, root: Path = ROOT) -> str:
    """A question of those that the model's run was judged on; else the tutorial's."""
    held_out = models.held_out(model, root) if model else None
    if held_out is None:
        return QUESTION
    try:
        with held_out.open(encoding="utf-8") as lines:
            messages = json.loads(next(lines))["messages"]
        return next(one["content"] for one in messages if one["role"] == "user" and one["content"].strip())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        # (a file of another form than the kit's)
        return QUESTION


def ask(address: Address, question: str, deployment: str | None = None, **params: object) -> Answer:
    """The answer to one question; `deployment` is asked whatever traffic it gets.

    Raises:
        NoAnswer: there is none, or one of another form.
    """
    import requests

    headers = {"Authorization": f"Bearer {address.key}"} | ({DEPLOYMENT: deployment} if deployment else {})
    body = {"input_data": [question], "params": params or {"max_new_tokens": 32}}
    try:
        answer = requests.post(address.uri, json=body, headers=headers, timeout=(CONNECT, TIMEOUT))
    except requests.RequestException as error:
        raise NoAnswer(_short(error), passing=True) from error
    said = _short(answer.text)
    if answer.status_code != requests.codes.ok:
        status = answer.status_code
        if status == MODEL_FAILED and answer.headers.get(MODEL_STATUS, "").isdecimal():
            status = int(answer.headers[MODEL_STATUS])
        raise NoAnswer(f"status {status}: {said}".rstrip(": "), passing=status in PASSING)
    return Answer(_text(answer, said), answer.headers.get(DEPLOYMENT))


def _text(answer: Any, said: str) -> str:
    try:
        texts = answer.json()
    except ValueError as error:
        raise NoAnswer(f"no JSON: {said}") from error
    if not (isinstance(texts, list) and len(texts) == 1 and isinstance(texts[0], str)):
        raise NoAnswer(f"no list of one text: {said}")
    if not texts[0].strip():
        raise NoAnswer("an empty text")
    return texts[0]


def ask_patiently(address: Address, question: str, deployment: str | None = None) -> Answer:
    """The same, asked again for a while where that may help."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask(address, question, deployment)
        except NoAnswer as error:
            if not error.passing or time.monotonic() > deadline:
                raise
        threading.Event().wait(PERIOD)


def _short(text: object) -> str:
    return " ".join(str(text).split())[:SHOWN]
