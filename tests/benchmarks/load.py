"""Clients of a scoring server: many at once, each with a connection of its own, every answer timed.

    from tests.benchmarks.load import Client, burst

The three wire formats that the benchmarks meet: OpenAI's stream (the kit and llama.cpp), and MLflow's /invocations.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TIMEOUT = 600


@dataclass(frozen=True)
class Answered:
    """One request: its status, seconds to the first token and to the last, tokens generated."""

    status: int
    first: float
    seconds: float
    tokens: int


#: Sends one prompt over a connection.
Client = Callable[[http.client.HTTPConnection, str, int], Answered]


def openai_client(model: str = "phikit", extra: dict | None = None) -> Client:
    """A client of /v1/chat/completions that streams."""

    def ask(connection: http.client.HTTPConnection, prompt: str, tokens: int) -> Answered:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **(extra or {}),
        }
        began = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            response.read()
            return Answered(response.status, 0, time.perf_counter() - began, 0)
        first, generated = 0.0, 0
        for line in response:
            if line.startswith(b"data: {"):
                chunk = json.loads(line[6:])
                if not first and chunk.get("choices") and chunk["choices"][0]["delta"].get("content"):
                    first = time.perf_counter() - began
                if chunk.get("usage"):
                    generated = chunk["usage"]["completion_tokens"]
        seconds = time.perf_counter() - began
        return Answered(200, first or seconds, seconds, generated)

    return ask


def mlflow_client(connection: http.client.HTTPConnection, prompt: str, tokens: int) -> Answered:
    """A client of /invocations, which never streams: its first token comes with the last."""
    # it does not say how many tokens it generated: those that were asked for
    body = {
        "inputs": [{"messages": [{"role": "user", "content": prompt}]}],
        "params": {"max_new_tokens": tokens, "temperature": 0.0},
    }
    began = time.perf_counter()
    connection.request("POST", "/invocations", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    seconds = time.perf_counter() - began
    return Answered(response.status, seconds, seconds, tokens if response.status == 200 else 0)


def burst(port: int, ask: Client, prompts: Sequence[str], clients: int, tokens: int) -> tuple[float, list[Answered]]:
    """Ask all prompts with so many clients at a time; the wall seconds of it all, and each answer.

    Raises:
        RuntimeError: an answer that is not 200, or a server that is gone.
    """
    pending = list(reversed(prompts))
    answered: list[Answered] = []
    broken: list[str] = []
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not pending:
                    break
                prompt = pending.pop()
            # one for each request: llama.cpp closes it after a stream, without a word
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
            try:
                result = ask(connection, prompt, tokens)
            except (OSError, http.client.HTTPException) as error:
                result = Answered(0, 0, 0, 0)
                broken.append(repr(error))
            finally:
                connection.close()
            with lock:
                answered.append(result)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if bad := [result.status for result in answered if result.status != 200]:
        raise RuntimeError(f"{len(bad)} of {len(prompts)} answers of port {port} were not 200: {set(bad)} {broken[:1]}")
    return seconds, answered
