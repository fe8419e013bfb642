"""Mixed load at twice a server's capacity for minutes: nothing may fail, and memory may not grow.

    python -m tests.benchmarks.bench_serving soak --minutes 10

Clients are twice as many as slots and queue together take in, with prompts and answers of all lengths; one in eight
hangs up in the middle. An accepted request must be answered whole; a refused one must be a 429.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
import time
from collections import Counter

from tests.benchmarks.contest import Result, table
from tests.benchmarks.servers import Running

#: Prompts in work and waiting, of the server's defaults: twice as many clients.
CLIENTS = 160
SAMPLES = 120
HANG_UP = 1 / 8


def run(server: Running, minutes: float) -> None:
    """Load the server, and print what came of it."""
    end = time.monotonic() + minutes * 60
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()
    threads = [
        threading.Thread(target=_client, args=(server.port, seed, end, outcomes, lock)) for seed in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    memory = []
    while time.monotonic() < end:
        memory.append(_number(server.port, "process_resident_memory_bytes"))
        time.sleep(minutes * 60 / SAMPLES)
    for thread in threads:
        thread.join()
    half = memory[len(memory) // 2 :]
    quarter = max(1, len(half) // 2)
    growth = (sum(half[-quarter:]) / quarter) / (sum(half[:quarter]) / quarter)
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()))
    failed = sum(
        count for outcome, count in outcomes.items() if outcome.startswith(("5", "broken", "4")) and outcome != "429"
    )
    table(
        f"{minutes:g} minutes at twice the capacity, {server.contender.name}",
        [
            Result("answers that failed or broke off", failed, 0, at_most=True),
            Result("memory at the end / at half time", growth, 1.02, at_most=True),
            Result("slots still busy afterwards", _number(server.port, "phikit_slots_busy"), 0, at_most=True),
            Result("prompts still waiting afterwards", _number(server.port, "phikit_queue_prompts"), 0, at_most=True),
        ],
    )


def _client(port: int, seed: int, end: float, outcomes: Counter[str], lock: threading.Lock) -> None:
    chance = random.Random(seed)
    while time.monotonic() < end:
        outcome = "broken"
        with contextlib.suppress(OSError, http.client.HTTPException):
            outcome = _ask(port, chance)
        with lock:
            outcomes[outcome] += 1
        if outcome == "429":
            # a client that heeds Retry-After, at its least
            time.sleep(chance.uniform(0.5, 1.5))


def _ask(port: int, chance: random.Random) -> str:
    """One request of one kind or another: its status, `gone` when this client hung up, `broken` when the server did."""
    words = " ".join(
        chance.choices(["Azure", "Xbox", "year", "who", "when", "product", "🙂"], k=chance.randint(1, 120))
    )
    stream = chance.random() < 0.5
    tokens = chance.randint(1, 96)
    messages = [{"role": "user", "content": words}]
    path, body = chance.choice(
        [
            ("/v1/chat/completions", {"model": "phikit", "messages": messages, "max_tokens": tokens, "stream": stream}),
            ("/score", {"input_data": [words] * chance.randint(1, 3), "params": {"max_new_tokens": tokens}}),
            (
                "/invocations",
                {"inputs": [{"messages": messages}], "params": {"max_new_tokens": tokens, "temperature": 0.7}},
            ),
        ]
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        if chance.random() < HANG_UP:
            time.sleep(chance.uniform(0, 2))
            return "gone"
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            return str(response.status)
        streamed = path.startswith("/v1") and stream
        return "200" if not streamed or (b'"error"' not in answer and answer.endswith(b"[DONE]\n\n")) else "broken"


def _number(port: int, name: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    raise RuntimeError(f"/metrics has no {name}")
