"""Writes to a conversation as another process: python -m tests.flows.history_writer USER CONVERSATION NAME COUNT

Says each message's content on standard output once it is kept. The store is that of PHIKIT_HISTORY.
"""

import os
import sys
import time

from flows.history import Message, new_id, open_history


def main(user: str, conversation: str, name: str, count: str) -> None:
    history = open_history(os.environ)
    for number in range(int(count)):
        content = f"{name} {number}"
        history.append(user, conversation, Message(new_id(), "user", content, time.time()))
        print(content, flush=True)
    history.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
