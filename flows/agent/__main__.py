"""Ask the model, and go on with a conversation, on Microsoft Agent Framework.

python -m flows.agent "Who founded Microsoft?"
python -m flows.agent --conversation ID "And when?"

The answer streams to standard output, the conversation's ID goes to standard error. Exit codes: 0 answered, 1 no answer
or no store, 2 bad input, 130 Ctrl-C (the half answer is not kept).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

from flows.agent.agent import AnswerError, Options, chatting
from flows.history import History, NotFound, Unavailable, open_history
from flows.history.store import NOBODY

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Ask what the command line asks and return the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        if not asked.question.strip():
            raise ValueError("QUESTION: is empty; ask something")
        history = open_history(environment)
        try:
            asyncio.run(_ask(asked, environment, history))
        finally:
            history.close()
    except (AnswerError, Unavailable) as error:
        print(error, file=sys.stderr)
        return FAILED
    except (NotFound, ValueError) as error:
        print(error.args[0], file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    return OK


async def _ask(asked: argparse.Namespace, environment: Mapping[str, str], history: History) -> None:
    options = Options(asked.system, asked.temperature, asked.max_tokens)
    conversation = asked.conversation
    async with chatting(environment, history, asked.user) as chat:
        if not conversation:
            conversation = await asyncio.to_thread(history.start, asked.user)
        try:
            async for piece in chat.ask(conversation, asked.question, options):
                print(piece, end="", flush=True)
            print()
        except BaseException:
            if not asked.conversation:
                # nothing was said in it
                await asyncio.to_thread(history.delete, asked.user, conversation)
            raise
    print(f"to go on: --conversation {conversation}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    summary, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m flows.agent",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--conversation", metavar="ID", default="", help="go on with this one (default: a new one)")
    parser.add_argument("--user", default=NOBODY, help="whose it is (default: %(default)s)")
    parser.add_argument("--system", default=Options.system, help="system text (default: the conversation's own)")
    parser.add_argument("--temperature", type=float, default=Options.temperature, help="0 (default): greedy")
    parser.add_argument(
        "--max-tokens", type=int, default=Options.max_tokens, help="of the answer (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
