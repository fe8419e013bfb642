"""The agent's answers to questions in turn, as JSON: python -m tests.flows.answer_in_turns < '["Who ...?", ...]'

To be run in the agent's environment. The endpoint and the store are those of the settings.
"""

import asyncio
import json
import os
import sys

from flows.agent.agent import chatting
from flows.history import open_history


async def main(questions: list[str]) -> None:
    history = open_history(os.environ)
    conversation = history.start("local")
    answers = []
    async with chatting(os.environ, history) as chat:
        for question in questions:
            pieces = [piece async for piece in chat.ask(conversation, question)]
            answers.append({"answer": "".join(pieces), "pieces": len(pieces)})
    print(json.dumps({"conversation": conversation, "answers": answers}))
    history.close()


if __name__ == "__main__":
    asyncio.run(main(json.load(sys.stdin)))
