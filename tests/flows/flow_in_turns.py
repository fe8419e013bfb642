"""The chat flow's answers to questions in turn, as JSON: python -m tests.flows.flow_in_turns FILE < '["Who ...?", ...]'

To be run in Prompt flow's environment. The endpoint is that of the settings.
"""

import json
import sys
from pathlib import Path

from promptflow.client import load_flow

FLOW = Path(__file__).parents[2] / "flows" / "chat"


def main(questions: list[str]) -> None:
    # what the flow's additional_includes put beside it where it is packed or served
    sys.path.insert(0, str(FLOW.parent))
    flow = load_flow(FLOW)
    history: list[dict] = []
    for question in questions:
        answer = flow(input_data=question, chat_history=history)["answer"]
        answer = answer if isinstance(answer, str) else "".join(answer)
        history.append({"inputs": {"input_data": question}, "outputs": {"answer": answer}})
    # (Prompt flow writes to standard output, too)
    Path(sys.argv[1]).write_text(json.dumps([turn["outputs"]["answer"] for turn in history]), encoding="utf-8")


if __name__ == "__main__":
    main(json.load(sys.stdin))
