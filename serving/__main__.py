"""The scoring server.

    python -m serving                                   # settings come from the environment: serving/settings.py
    PHIKIT_SERVE_MODEL=runs/latest/model python -m serving

Exit codes: 0 ended by SIGTERM or SIGINT, 1 the model cannot be loaded, 2 settings or a model directory that
cannot be used.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from serving.errors import BadInput
from serving.settings import PREFIX, Settings


def main() -> int:
    """Serve until a signal comes; answers in progress get `drain` seconds to end."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # nothing that is served comes from a hub, and no library is to ask one
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        settings = Settings.load()
        from serving.engines import choose
        from serving.model_folder import find, read

        model = read(find(settings.model))
        engine = choose(model, settings)
        import uvicorn

        from serving.access_log import set_up
        from serving.app import build
        from serving.protocol import patient

        failures: list[str] = []

        def give_up(reason: str) -> None:
            failures.append(reason)
            server.should_exit = True

        app = build(settings, model, engine, give_up)
        listener = listen(settings)
    except BadInput as error:
        for finding in error.findings:
            print(f"error: {finding}", file=sys.stderr)
        return 2
    set_up()
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=patient(settings.patience),
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=settings.drain,
        )
    )
    # uvicorn drains, then raises the signal again: by then there is nothing left to interrupt
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    logging.getLogger("phikit.serving").info("listening on http://%s:%d", settings.host, listener.getsockname()[1])
    server.run([listener])
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 0 if server.started and not failures else 1


def listen(settings: Settings) -> socket.socket:
    """The socket that the server listens on.

    Raises:
        BadInput: the address is not this machine's, or something else listens there.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        where = f"{PREFIX}HOST {settings.host!r}, {PREFIX}PORT {settings.port}"
        raise BadInput(f"{where}: cannot listen there ({error.strerror}); choose another port or address") from error


if __name__ == "__main__":
    sys.exit(main())
