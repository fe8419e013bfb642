"""What a person at the chat page waits for: the first word of an answer, the list of 10,000 conversations.

    python -m tests.benchmarks.bench_page
    python -m tests.benchmarks.bench_page --model runs/latest/model --rounds 30

All parts really run (scoring server, flow, page, Chromium). From Enter to the first word on the page is compared with
the scoring server's own time to first token, asked in turns with the same question; medians. The page may take 1.2
times that and 100 ms. The list is that of a user with 10,000 conversations of two messages each; it may take 300 ms.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from playwright.sync_api import expect

from flows.history import Message, new_id
from flows.history.sqlite import SqliteHistory
from tests.e2e.browser import Tab, chromium
from tests.flows.parts import flow, page
from tests.serving.server import QUESTION, Server, serving

ROOT = Path(__file__).parents[2]
CONVERSATIONS = 10_000
#: Milliseconds, measured in the page itself: from the key to the first frame in which the answer has text.
FIRST_WORD = """() => {
    const before = document.querySelectorAll('#chat [data-testid=bot]').length;
    window.firstWord = new Promise((done) => document.addEventListener('keydown', () => {
        const start = performance.now();
        const look = () => {
            const answers = document.querySelectorAll('#chat [data-testid=bot]');
            if (answers.length > before && answers[before].textContent.trim()) done(performance.now() - start);
            else requestAnimationFrame(look);
        };
        look();
    }, {capture: true, once: true}));
}"""
#: Milliseconds: from a click that asks for the list again to the frame in which it is another.
LIST = """(words) => new Promise((done) => {
    const rows = () => [...document.querySelectorAll('#listing label')].map((row) => row.textContent).join();
    const before = rows(), start = performance.now();
    const look = () => rows() !== before ? done(performance.now() - start) : requestAnimationFrame(look);
    const box = document.querySelector('#search input, #search textarea');
    box.value = words;
    box.dispatchEvent(new Event('input', {bubbles: true}));
    look();
})"""


def main() -> int:
    """Measure, print, and return 1 when a goal is missed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", type=Path, help="MLflow model directory; unset: tiny, trained for this")
    options.add_argument("--rounds", type=int, default=20)
    told = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = told.model or train(folder)
        fill(folder / "conversations.db")
        with (
            serving(model.absolute(), folder / "scoring", threads=0) as scoring,
            flow(folder, scoring.url) as address,
            page(folder, address) as chat,
            chromium() as browser,
        ):
            here = Tab(browser, chat, folder)
            first = first_words(here, scoring, told.rounds)
            lists = listings(here, told.rounds)
            here.close()
    return report(first, lists)


def train(folder: Path) -> Path:
    """`tiny` as make local-train makes it, in a few epochs: it is its speed that counts."""
    sample = ROOT / "training" / "sample"
    command = [sys.executable, "fine_tune.py", "--recipe", "tiny_cpu", "--model", "recipe"]
    command += ["--overrides", '{"num_train_epochs": 2, "num_eval_questions": 4}']
    command += ["--train-file", str(sample / "train.jsonl"), "--eval-file", str(sample / "held_out.jsonl")]
    command += ["--run-dir", str(folder / "run"), "--model_output_dir", str(folder / "run" / "model")]
    subprocess.run(command, cwd=ROOT / "training", check=True, capture_output=True)
    return folder / "run" / "model"


def fill(file: Path) -> None:
    """Keep 10,000 conversations of the page's one user."""
    memory = Path("/dev/shm")
    # (each write waits for the disk, and there are twenty thousand)
    made = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)) / "conversations.db"
    history = SqliteHistory(made)
    for number in range(CONVERSATIONS):
        conversation = history.start("local", f"Conversation {number} about Microsoft")
        question, answer = f"Question {number}", f"Answer {number}"
        history.append(
            "local",
            conversation,
            Message(new_id(), "user", question, time.time()),
            Message(new_id(), "assistant", answer, time.time()),
        )
    history.close()
    shutil.copy(made, file)
    shutil.rmtree(made.parent)


def first_words(here: Tab, scoring: Server, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds to the first word on the page, and to the first token of the scoring server, in turns."""
    words, tokens = [], []
    for _ in range(rounds):
        here.page.locator("#new").click()
        expect(here.questions).to_have_count(0)
        here.message.fill(QUESTION)
        here.page.evaluate(FIRST_WORD)
        here.message.press("Enter")
        words.append(here.page.evaluate("window.firstWord"))
        here.done(1)
        tokens.append(first_token(scoring))
    return words[1:], tokens[1:]


def first_token(scoring: Server) -> float:
    """Milliseconds to the first piece of text on a connection that is open already, as the flow's is."""
    body = {"model": "phikit", "stream": True, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    with httpx.Client(base_url=scoring.url) as client:
        client.get("/health")
        start = time.perf_counter()
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                if '"content":' in line and '"content":""' not in line.replace(" ", ""):
                    return (time.perf_counter() - start) * 1000
    raise RuntimeError("the scoring server sent no text")


def listings(here: Tab, rounds: int) -> dict[str, list[float]]:
    """Milliseconds to the list: of the page's opening (the answer's way included), of a search and back."""
    found: dict[str, list[float]] = {"opened": [], "searched": [], "cleared": []}
    for number in range(rounds):
        here.page.reload(wait_until="commit")
        here.page.locator("#listing label").first.wait_for()
        found["opened"].append(
            here.page.evaluate(
                """() => {
                    const all = performance.getEntriesByType('resource');
                    const asked = all.filter((one) => /run\\/|queue\\//.test(one.name));
                    return performance.now() - Math.min(...asked.map((one) => one.startTime));
                }"""
            )
        )
        expect(here.message).to_be_editable()
        found["searched"].append(here.page.evaluate(LIST, f"Question {number + 17}"))
        found["cleared"].append(here.page.evaluate(LIST, ""))
    return found


def report(first: tuple[list[float], list[float]], lists: dict[str, list[float]]) -> int:
    """Print the medians next to their goals."""
    words, tokens = map(statistics.median, first)
    goal = 1.2 * tokens + 100
    print(
        f"first word on the page {words:.0f} ms, first token of the scoring server {tokens:.0f} ms; goal {goal:.0f} ms"
    )
    missed = words > goal
    for name, times in lists.items():
        print(f"list of {CONVERSATIONS:,} {name}: {statistics.median(times):.0f} ms; goal 300 ms")
        missed |= statistics.median(times) > 300
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
