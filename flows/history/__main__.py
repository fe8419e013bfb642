"""The kept conversations on the command line.

python -m flows.history list --search Microsoft
python -m flows.history export chats.jsonl && phikit data prepare chats.jsonl
python -m flows.history export pairs.jsonl --preferences --user ada

The store is that of PHIKIT_HISTORY. Exit codes: 0 done, 1 the store cannot answer, 2 bad input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from flows.history import History, NotFound, Unavailable, open_history
from flows.history.export import chats, preferences, write
from flows.history.store import NOBODY

OK, FAILED, BAD_INPUT = 0, 1, 2


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Do what the command line asks and return the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        history = open_history(environment)
        try:
            asked.run(history, asked)
        finally:
            history.close()
    except Unavailable as error:
        print(error, file=sys.stderr)
        return FAILED
    except (NotFound, ValueError, OSError) as error:
        print(error.args[0] if isinstance(error, LookupError) else error, file=sys.stderr)
        return BAD_INPUT
    return OK


def _list(history: History, asked: argparse.Namespace) -> None:
    for found in history.list(asked.user, asked.limit, search=asked.search):
        when = datetime.fromtimestamp(found.updated).astimezone().strftime("%Y-%m-%d %H:%M")
        print(f"{found.id}  {when}  {found.messages:4}  {found.title}")


def _show(history: History, asked: argparse.Namespace) -> None:
    for message in history.open(asked.user, asked.conversation):
        print(f"{message.role}: {message.content}")


def _rename(history: History, asked: argparse.Namespace) -> None:
    history.rename(asked.user, asked.conversation, asked.title)


def _delete(history: History, asked: argparse.Namespace) -> None:
    history.delete(asked.user, asked.conversation)


def _export(history: History, asked: argparse.Namespace) -> None:
    what, lines = ("pairs", preferences) if asked.preferences else ("conversations", chats)
    try:
        count = write(asked.file, lines(history, asked.user))
    except OSError as error:
        raise ValueError(f"{asked.file}: cannot be written ({error.strerror}); name another file") from None
    if not count:
        raise ValueError(f"{asked.file}: not written, {asked.user} has no {what} to export; --user names another")
    print(f"{asked.file}: {count} {what}")


def _parser() -> argparse.ArgumentParser:
    summary, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m flows.history",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whose = argparse.ArgumentParser(add_help=False)
    whose.add_argument(
        "--user", default=NOBODY, help="whose conversations (default: %(default)s, where nobody logs in)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("list", parents=[whose], help="the conversations, the last changed first")
    one.add_argument("--search", default="", help="those in which this text occurs")
    one.add_argument("--limit", type=int, default=50, help="at most so many (default: %(default)s)")
    one.set_defaults(run=_list)
    one = commands.add_parser("show", parents=[whose], help="one conversation's messages")
    one.add_argument("conversation")
    one.set_defaults(run=_show)
    one = commands.add_parser("rename", parents=[whose], help="give a conversation another title")
    one.add_argument("conversation")
    one.add_argument("title")
    one.set_defaults(run=_rename)
    one = commands.add_parser("delete", parents=[whose], help="take a conversation away, for good")
    one.add_argument("conversation")
    one.set_defaults(run=_delete)
    one = commands.add_parser("export", parents=[whose], help="write conversations, or preferences, as JSON lines")
    one.add_argument("file", type=Path)
    one.add_argument("--preferences", action="store_true", help="pairs of answers, from thumbs and comparisons")
    one.set_defaults(run=_export)
    return parser


if __name__ == "__main__":
    sys.exit(main())
