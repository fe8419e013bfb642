"""Batch runs of the chat flow and of the evaluation flow over the same lines, with a look at every line.

answers, measures, failed = run(lines, folder, "tuned", max_tokens=128)

promptflow says Completed even when every line failed, so what counts here is which lines have an output.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.evaluate.lines import lines_of

FLOWS = Path(__file__).resolve().parents[1]
#: promptflow's own settings of what it says, and to whom.
QUIET = {
    "PF_TRACING_SKIP_LOCAL_SETUP": "true",
    "PF_DISABLE_TRACING": "true",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    "PF_LOGGING_LEVEL": "ERROR",
}
SETTINGS = "telemetry:\n  enabled: false\ntrace:\n  destination: none\n"
NO_REASON = "no output, and no reason given"
#: How each input of the chat flow is taken from a line.
INPUTS = {
    "input_data": "${data.question}",
    "chat_history": "${data.history}",
    "system": "${data.system}",
}


def run(
    lines: list[dict[str, Any]], folder: Path, model: str, max_tokens: int
) -> tuple[dict[int, str], dict[int, dict[str, float]], dict[int, str]]:
    """Ask every line of one model and measure the answers.

    Args:
        folder: where the lines are written for promptflow, and where it keeps its own records of them.

    Returns:
        Answers, measures, and why a line failed, each by the line's place (0 is the first).
    """
    # before promptflow is imported, which reads them then: nothing is traced, and its progress is not printed
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # held-out conversations would pile up in its home folder otherwise
    home = folder / "home"
    home.mkdir(exist_ok=True)
    (home / "pf.yaml").write_text(SETTINGS, encoding="utf-8")
    os.environ["PF_HOME_DIRECTORY"] = str(home)
    from promptflow.client import PFClient

    data = folder / "lines.jsonl"
    data.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    client = PFClient()
    asked = client.run(
        flow=FLOWS / "chat",
        data=data,
        name=f"chat-{model}-{uuid.uuid4().hex[:12]}",
        column_mapping={**INPUTS, "model": model, "max_tokens": str(max_tokens), "temperature": "0"},
        raise_on_error=False,
    )
    answers = {
        number: str(output["answer"]) for number, output in _outputs(asked).items() if output.get("answer") is not None
    }
    reasons = _reasons(asked)
    failed = {number: reasons.get(number, NO_REASON) for number in range(len(lines)) if number not in answers}
    if not answers:
        return {}, {}, failed
    measured = client.run(
        flow=FLOWS / "evaluate",
        data=data,
        run=asked,
        name=f"evaluate-{model}-{uuid.uuid4().hex[:12]}",
        column_mapping={"expected": "${data.expected}", "answer": "${run.outputs.answer}"},
        raise_on_error=False,
    )
    measures = {number: output["measures"] for number, output in _outputs(measured).items() if output.get("measures")}
    reasons = _reasons(measured)
    failed |= {
        number: f"not measured: {reasons.get(number, NO_REASON)}" for number in answers if number not in measures
    }
    return answers, measures, failed


def _outputs(batch: Any) -> dict[int, Mapping[str, Any]]:
    """What a batch run put out, by line; a line that failed has nothing."""
    file = Path(batch.properties["output_path"]) / "flow_outputs" / "output.jsonl"
    if not file.exists():
        return {}
    found = map(json.loads, filter(None, lines_of(file)))
    return {output["line_number"]: output for output in found}


def _reasons(batch: Any) -> dict[int, str]:
    """What promptflow kept of each failed line, in one line each."""
    folder = Path(batch.properties["output_path"]) / "flow_artifacts"
    found = {}
    for file in sorted(folder.glob("*.jsonl")):
        for record in map(json.loads, filter(None, lines_of(file))):
            if error := (record.get("run_info") or {}).get("error"):
                found[record["line_number"]] = " ".join(str(error.get("message", "")).split())
    return found
