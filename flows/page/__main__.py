"""The chat page.

    python -m flows.page                       # http://127.0.0.1:7860; settings: flows/page/settings.py

Runs in the chat image or in .venv-chat; asks the flow at PHIKIT_FLOW_URI (make flow-serve). Exit codes: 0 ended by
SIGTERM or SIGINT, 2 settings that cannot be used.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from flows.page.settings import PREFIX, BadInput, Settings

#: No library tells anybody that it is used, nor asks for newer versions of itself.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
#: Seconds that answers in progress get to end.
DRAIN = 3


def main() -> int:
    """Serve the page until a signal comes."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ |= QUIET
    from flows.history import Unavailable, open_history

    try:
        settings = Settings.load()
        try:
            history = open_history(os.environ)
        except (Unavailable, ValueError) as error:
            raise BadInput([str(error)]) from None
        listener = listen(settings)
    except BadInput as error:
        for finding in error.findings:
            print(f"error: {finding}", file=sys.stderr)
        return 2
    import uvicorn

    from flows.page.app import build
    from flows.page.flow_client import Flow

    server = uvicorn.Server(
        uvicorn.Config(
            build(settings, history, Flow(settings.flow)),
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=DRAIN,
        )
    )
    # uvicorn drains, then raises the signal again: by then there is nothing left to interrupt
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    address = f"http://{settings.host}:{listener.getsockname()[1]}"
    print(f"the chat page is listening on {address}", file=sys.stderr, flush=True)
    server.run([listener])
    return 0 if server.started else 1


def listen(settings: Settings) -> socket.socket:
    """The socket that the page listens on.

    Raises:
        BadInput: the address is not this machine's, or something else listens there.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        where = f"{PREFIX}HOST {settings.host!r}, {PREFIX}PORT {settings.port}"
        raise BadInput([f"{where}: cannot listen there ({error.strerror}); choose another port or address"]) from error


if __name__ == "__main__":
    sys.exit(main())
