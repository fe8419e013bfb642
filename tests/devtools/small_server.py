"""The server of the small checkout: it answers /ready, and at any other path with what it was told and can do.

In the place of serving/__main__.py; started as `python -m serving`. Ended by SIGTERM or SIGINT, with exit code 0.
"""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        model = Path(os.environ["PHIKIT_SERVE_MODEL"])
        facts = {
            "environment": {name: value for name, value in os.environ.items() if name.startswith("PHIKIT_")},
            "cwd": str(Path.cwd()),
            "package": __package__,
            "uid": os.getuid(),
            "files": sorted(path.name for path in model.iterdir()),
            "writable": [str(path) for path in (model, Path.cwd(), Path(__file__).parent) if os.access(path, os.W_OK)],
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(facts).encode())

    def log_message(self, *words: object) -> None:
        pass


for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: sys.exit(0))
address = (os.environ["PHIKIT_SERVE_HOST"], int(os.environ["PHIKIT_SERVE_PORT"]))
ThreadingHTTPServer(address, Answer).serve_forever()
