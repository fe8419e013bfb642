"""A deployment watched while it takes over: does it answer, and does what everybody asks reach it?

answers(workspace, "my-endpoint", "green", question)
"""

from __future__ import annotations

import contextlib
import time

from devtools.azure import smoke
from devtools.azure.deployment import Broken
from devtools.azure.progress import say
from devtools.azure.workspace import Workspace

#: Answers that each step of the traffic has to give.
ANSWERS = 5
#: Answers to anybody's questions, one after the other, that come from the new deployment before the old one may go; and
#: the seconds that the front door has to get there.
IN_A_ROW, PATIENCE = 5, 300.0


def answers(workspace: Workspace, name: str, deployment: str, question: str) -> None:
    """Ask a deployment once, whatever traffic it gets, and show the answer; raises Broken when there is none."""
    address = smoke.Address.of(workspace, name)
    try:
        answer = smoke.ask_patiently(address, question, deployment)
    except smoke.NoAnswer as error:
        raise Broken(f"deployment {deployment}: does not answer {question!r} ({error})") from error
    say(f"deployment {deployment}: {question} {' '.join(answer.text.split())[:120]}")


def holds(workspace: Workspace, name: str, deployment: str, question: str, percent: int) -> None:
    """Return when a deployment answers with so much of the traffic, and with all of it everybody.

    Raises:
        Broken: it does not.
    """
    address = smoke.Address.of(workspace, name)
    try:
        for _ in range(ANSWERS):
            # by its name: at 10 % it would hardly be asked otherwise
            smoke.ask_patiently(address, question, deployment)
        if percent == 100:
            _reaches_everybody(address, deployment, question)
    except smoke.NoAnswer as error:
        raise Broken(f"deployment {deployment}: fails at {percent} % of the traffic ({error})") from error


def arrives(workspace: Workspace, name: str, deployment: str, question: str) -> None:
    """Wait, as long as it takes, until everybody's questions go where all of the traffic was sent.

    What does not answer there is no reason to wait, nor to stop: what got the traffic before is to go in any case.
    """
    with contextlib.suppress(Broken, smoke.NoAnswer):
        _reaches_everybody(smoke.Address.of(workspace, name), deployment, question)


def _reaches_everybody(address: smoke.Address, deployment: str, question: str) -> None:
    deadline, row = time.monotonic() + PATIENCE, 0
    while row < IN_A_ROW:
        answer = smoke.ask_patiently(address, question)
        row = row + 1 if answer.deployment in (deployment, None) else 0
        if time.monotonic() > deadline:
            raise Broken(f"deployment {deployment}: after {PATIENCE:.0f} s others still answer in its place")
